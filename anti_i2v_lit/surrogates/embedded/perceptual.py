"""LPIPS with an AlexNet backbone read from a local file, without a network."""

from __future__ import annotations

import pathlib
import re
import warnings

import lpips
import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class PerceptualDistance(nn.Module):
    """LPIPS (Zhang et al. 2018, version 0.1, AlexNet) of image pairs in [-1, 1].

    Args:
        backbone: ``safetensors`` file with torchvision names (``features.N.weight``); the linear
            layers come with the ``lpips`` package. None leaves the backbone random, which tests
            use; distances then mean nothing.
    """

    def __init__(self, backbone: pathlib.Path | None) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # torchvision's note on the argument that lpips passes concerns neither of us.
            warnings.simplefilter("ignore")
            self.net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        if backbone is not None:
            source = load_file(backbone)
            state = self.net.net.state_dict()
            for name in state:
                found = re.fullmatch(r"slice\d+\.(\d+)\.(weight|bias)", name)
                if found is None:
                    raise ValueError(f"lpips has an unexpected layer {name}; install lpips 0.1.4.")
                state[name] = source[f"features.{found[1]}.{found[2]}"].to(torch.float32)
            self.net.net.load_state_dict(state)
        self.requires_grad_(False)
        self.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances ``[B]`` (0 for equal pictures) of two batches ``[B, 3, H, W]``."""
        return self.net(first, second).flatten()
