"""Optical flow between frames: a classical method that needs no weights, and RAFT."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.metrics.memory import LastResult
from anti_i2v_lit.metrics.requirements import WeightsFile

MIN_SIDE = 32  # pixels; smaller frames hold too few patches for either method
RAFT_MIN_SIDE, RAFT_UNIT = 128, 8  # pixels; its correlation pyramid ends there
RAFT_UPDATES = 20  # as VBench runs it
_LUMA = (0.299, 0.587, 0.114)
RAFT_WEIGHTS = WeightsFile(
    name="raft_large_C_T_SKHT_V2-ff5fadd5.pth",
    how_to_get=(
        "It is torchvision's (BSD-3-Clause): download "
        "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth and put it into "
        "the folder of weights, or set weights=FILE (raft_small files will do as well)"
    ),
)


class OpticalFlow(ABC):
    """Where every pixel goes from one frame to the next; metrics share it and its results.

    A variant provides `_between`.
    """

    def __init__(self) -> None:
        self._forward: LastResult[Tensor] = LastResult()
        self._backward: LastResult[Tensor] = LastResult()

    @abstractmethod
    def _between(self, first: Tensor, second: Tensor) -> Tensor:
        """Pairs of frames [N, 3, H, W] in [0, 1] -> [N, 2, H, W], (x, y) in pixels."""

    @final
    @torch.no_grad()
    def between(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow of pairs of frames.

        Args:
            first: [N, 3, H, W] in [0, 1].
            second: same shape.

        Returns:
            [N, 2, H, W]: the pixel (x, y) of `first` is at (x, y) + flow in `second`, pixels.

        Raises:
            ValueError: frames smaller than 32 pixels.
        """
        if min(first.shape[-2:]) < MIN_SIDE:
            raise ValueError(
                f"optical flow needs frames of at least {MIN_SIDE} pixels a side, got "
                f"{tuple(first.shape[-2:])}"
            )
        if not len(first):
            return first.new_zeros(0, 2, *first.shape[-2:])
        return self._between(first, second)

    @final
    def forward(self, frames: Tensor) -> Tensor:
        """Flow from each frame of [T, 3, H, W] to the next, [T - 1, 2, H, W]."""
        return self._forward.get(frames, lambda: self.between(frames[:-1], frames[1:]))

    @final
    def backward(self, frames: Tensor) -> Tensor:
        """Flow from each frame of [T, 3, H, W] but the first to the previous one."""
        return self._backward.get(frames, lambda: self.between(frames[1:], frames[:-1]))


class DisFlow(OpticalFlow):
    """Dense inverse search (Kroeger et al., ECCV 2016) as OpenCV has it, medium preset, CPU."""

    def __init__(self) -> None:
        super().__init__()
        import cv2

        self._method: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def _between(self, first: Tensor, second: Tensor) -> Tensor:
        weights = first.new_tensor(_LUMA)[:, None, None]
        grey = [
            ((x * weights).sum(dim=1) * 255).round().byte().cpu().numpy() for x in (first, second)
        ]
        # A fresh flow for every pair: a reused one would start from the pair before.
        flows = [
            torch.from_numpy(self._method.calc(a, b, None)) for a, b in zip(*grey, strict=True)
        ]
        return torch.stack(flows).permute(0, 3, 1, 2).to(first.device)


class RaftFlow(OpticalFlow):
    """RAFT (Teed and Deng, ECCV 2020) as torchvision has it.

    Args:
        path: torchvision's weights of `raft_large` or `raft_small`.

    Raises:
        ValueError: another file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torchvision.models.optical_flow import raft_large, raft_small

        state = torch.load(path, map_location="cpu", weights_only=True)
        errors = []
        for build in (raft_large, raft_small):
            self._network: Any = build(weights=None)
            try:
                self._network.load_state_dict(state)
                break
            except RuntimeError as error:
                errors.append(str(error).splitlines()[0])
        else:
            raise ValueError(f"weights: {path} is no RAFT of torchvision: {'; '.join(errors)}")
        self._network.requires_grad_(False).eval()

    def _between(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        factor = max(1.0, RAFT_MIN_SIDE / min(height, width))
        size = [max(1, round(side * factor / RAFT_UNIT)) * RAFT_UNIT for side in (height, width)]
        large = [2 * F.interpolate(x, size=size, mode="bilinear") - 1 for x in (first, second)]
        network = self._network.to(first.device)
        flows = [
            network(a[None], b[None], num_flow_updates=RAFT_UPDATES)[-1][0]
            for a, b in zip(*large, strict=True)
        ]
        flow = F.interpolate(torch.stack(flows), size=(height, width), mode="bilinear")
        return flow * flow.new_tensor([width / size[1], height / size[0]])[:, None, None]


@functools.lru_cache(maxsize=1)
def shared_dis() -> DisFlow:
    """The one classical flow of all metrics."""
    return DisFlow()


@functools.lru_cache(maxsize=2)
def shared_raft(path: str) -> RaftFlow:
    """The one RAFT of all metrics with the same weights."""
    return RaftFlow(Path(path))


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """Look up images at shifted places, bilinearly; the edge is continued outwards.

    Args:
        images: [N, C, H, W].
        flow: [N, 2, H, W], (x, y) in pixels.

    Returns:
        [N, C, H, W]: at (x, y) the image at (x, y) + flow.
    """
    height, width = images.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    x = (columns + flow[:, 0] + 0.5) * (2 / width) - 1
    y = (rows + flow[:, 1] + 0.5) * (2 / height) - 1
    grid = torch.stack([x, y], dim=-1).to(images)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def midpoint(first: Tensor, second: Tensor, forth: Tensor, back: Tensor) -> Tensor:
    """The frames halfway between two, by their flows.

    Jiang et al., Super SloMo, CVPR 2018, equation 4 at t = 1/2, both frames weighted alike.

    Args:
        first: [N, 3, H, W].
        second: same shape.
        forth: flow from first to second, [N, 2, H, W] in pixels.
        back: flow from second to first.
    """
    to_first = (back - forth) / 4
    return (warp(first, to_first) + warp(second, -to_first)) / 2


def is_visible(forth: Tensor, back: Tensor) -> Tensor:
    """Pixels that are neither covered in the other frame nor at the edge of a motion.

    Ruder, Dosovitskiy and Brox, Artistic style transfer for videos, GCPR 2016, equations 5, 6.

    Args:
        forth: flow from a frame to another, [N, 2, H, W] in pixels.
        back: flow from the other frame.

    Returns:
        Bool [N, H, W].
    """
    returned = warp(back, forth)
    sizes = forth.square().sum(dim=1) + returned.square().sum(dim=1)
    covered = (forth + returned).square().sum(dim=1) > 0.01 * sizes + 0.5
    rows, columns = torch.gradient(forth, dim=(2, 3))
    slope = rows.square().sum(dim=1) + columns.square().sum(dim=1)
    at_edge = slope > 0.01 * forth.square().sum(dim=1) + 0.002
    return ~(covered | at_edge)
