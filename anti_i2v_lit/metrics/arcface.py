"""ArcFace as insightface publishes it: an ONNX file run by onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.requirements import OptionalPackage, WeightsFile

CROP_PX = 112
WEIGHTS = WeightsFile(
    name="w600k_r50.onnx",
    how_to_get=(
        "It is part of insightface's model pack buffalo_l (research use only): unpack "
        "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip and "
        "set weights=FILE or put it into the folder of weights; or leave identity_arcface out "
        "of the metrics"
    ),
)
ONNXRUNTIME = OptionalPackage(
    name="onnxruntime", how_to_get="pip install 'anti-i2v-lit[arcface]' (or onnxruntime alone)"
)


class ArcFace(FaceEmbedder):
    """ArcFace with a residual network of 50 layers, 512 numbers, trained on WebFace600K.

    Deng et al., "ArcFace: Additive angular margin loss for deep face recognition", CVPR 2019;
    alignment and normalisation as insightface's `ArcFaceONNX` has them. It runs on the CPU and
    gives no gradients.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the network.

        Attributes:
            weights: path of the ONNX file; empty means $ANTI_I2V_DATA/models/w600k_r50.onnx.
        """

        weights: str = ""

    # Published for pixel centres at whole numbers; ours lie at halves.
    template = (
        (38.7946, 52.1963),
        (74.0318, 52.0014),
        (56.5252, 72.2366),
        (42.0493, 92.8655),
        (71.2299, 92.7041),
    )
    crop_px = CROP_PX
    centre_name = ""  # its descriptors are trained by angle: strangers are near 0 already

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network = OnnxNetwork(WEIGHTS.require(config.weights))

    @property
    def network(self) -> nn.Module:
        """The network."""
        return self._network

    def _descriptors(self, crops: Tensor) -> Tensor:
        return self._network(crops)


class OnnxNetwork(nn.Module):
    """Aligned crops [N, 3, 112, 112] in [0, 1] to descriptors [N, D], without gradients.

    Args:
        path: ONNX file with one image input [N, 3, 112, 112], RGB in [-1, 1].

    Raises:
        ValueError: onnxruntime is not installed, or a model with other inputs.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not ONNXRUNTIME.is_here:
            raise ValueError(f"ArcFace needs onnxruntime: {ONNXRUNTIME.how_to_get}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or list(inputs[0].shape[1:]) != [3, CROP_PX, CROP_PX]:
            raise ValueError(
                f"{path}: expected one input [N, 3, {CROP_PX}, {CROP_PX}], got "
                f"{[entry.shape for entry in inputs]}; take w600k_r50.onnx of buffalo_l"
            )
        self._input = inputs[0].name

    def forward(self, crops: Tensor) -> Tensor:
        """Return descriptors [N, D] on the device of the crops."""
        pixels = (crops.detach().cpu() * 2 - 1).float().contiguous().numpy()
        (descriptors,) = self._session.run(None, {self._input: pixels})
        return torch.from_numpy(descriptors).to(crops.device)
