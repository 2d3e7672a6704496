"""The three networks of MTCNN, with the packaged weights.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks", IEEE Signal Processing Letters 23(10), 2016, figure 2.
Module names are those of the weight files.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

_WEIGHTS = Path(__file__).parents[1] / "backbones" / "mtcnn.safetensors"


class _Flatten(nn.Module):
    """Flatten [B, C, H, W] in the order C, W, H, in which the dense weights are stored."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3).flatten(1)


def _pool(size: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(size, stride=2, ceil_mode=True)


def _features(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    features = nn.Sequential()
    for name, layer in layers:
        features.add_module(name, layer)
    return features


class ProposalNet(nn.Module):
    """P-Net: scores every 12 x 12 window of an image at stride 2."""

    cell_px = 12
    stride_px = 2

    def __init__(self) -> None:
        super().__init__()
        self.features = _features(
            ("conv1", nn.Conv2d(3, 10, 3)),
            ("prelu1", nn.PReLU(10)),
            ("pool1", _pool(2)),
            ("conv2", nn.Conv2d(10, 16, 3)),
            ("prelu2", nn.PReLU(16)),
            ("conv3", nn.Conv2d(16, 32, 3)),
            ("prelu3", nn.PReLU(32)),
        )
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, 3, H, W] in about [-1, 1] to face scores [B, h, w] and shifts [B, h, w, 4]."""
        x = self.features(x)
        score = self.conv4_1(x).softmax(dim=1)[:, 1]
        return score, self.conv4_2(x).permute(0, 2, 3, 1)


class RefineNet(nn.Module):
    """R-Net: judges 24 x 24 crops."""

    crop_px = 24

    def __init__(self) -> None:
        super().__init__()
        self.features = _features(
            ("conv1", nn.Conv2d(3, 28, 3)),
            ("prelu1", nn.PReLU(28)),
            ("pool1", _pool(3)),
            ("conv2", nn.Conv2d(28, 48, 3)),
            ("prelu2", nn.PReLU(48)),
            ("pool2", _pool(3)),
            ("conv3", nn.Conv2d(48, 64, 2)),
            ("prelu3", nn.PReLU(64)),
            ("flatten", _Flatten()),
            ("conv4", nn.Linear(576, 128)),
            ("prelu4", nn.PReLU(128)),
        )
        self.conv5_1 = nn.Linear(128, 2)
        self.conv5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map crops [N, 3, 24, 24] to face scores [N] and box shifts [N, 4]."""
        x = self.features(x)
        return self.conv5_1(x).softmax(dim=1)[:, 1], self.conv5_2(x)


class OutputNet(nn.Module):
    """O-Net: judges 48 x 48 crops and places five landmarks."""

    crop_px = 48

    def __init__(self) -> None:
        super().__init__()
        self.features = _features(
            ("conv1", nn.Conv2d(3, 32, 3)),
            ("prelu1", nn.PReLU(32)),
            ("pool1", _pool(3)),
            ("conv2", nn.Conv2d(32, 64, 3)),
            ("prelu2", nn.PReLU(64)),
            ("pool2", _pool(3)),
            ("conv3", nn.Conv2d(64, 64, 3)),
            ("prelu3", nn.PReLU(64)),
            ("pool3", _pool(2)),
            ("conv4", nn.Conv2d(64, 128, 2)),
            ("prelu4", nn.PReLU(128)),
            ("flatten", _Flatten()),
            ("conv5", nn.Linear(1152, 256)),
            ("prelu5", nn.PReLU(256)),
        )
        self.conv6_1 = nn.Linear(256, 2)
        self.conv6_2 = nn.Linear(256, 4)
        self.conv6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map crops [N, 3, 48, 48] to scores [N], box shifts [N, 4] and landmarks [N, 5, 2].

        Landmarks are (x, y) shares of the crop: the eye at the image's left, the other eye,
        nose, mouth corner at the image's left, the other corner.
        """
        x = self.features(x)
        landmarks = self.conv6_3(x).unflatten(1, (2, 5)).transpose(1, 2)
        return self.conv6_1(x).softmax(dim=1)[:, 1], self.conv6_2(x), landmarks


def load_networks() -> tuple[ProposalNet, RefineNet, OutputNet]:
    """Build the three networks, frozen, in eval mode, with the packaged weights.

    Raises:
        ValueError: the installation lacks the weights.
    """
    if not _WEIGHTS.is_file():
        raise ValueError(f"face detector: {_WEIGHTS} is missing; install the package again")
    tensors = load_file(_WEIGHTS)
    networks = (ProposalNet(), RefineNet(), OutputNet())
    for network, prefix in zip(networks, ("pnet.", "rnet.", "onet."), strict=True):
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        network.load_state_dict(own)
        network.requires_grad_(False).eval()
    return networks
