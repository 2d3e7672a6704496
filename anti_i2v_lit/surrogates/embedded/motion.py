"""Clips rendered from portraits: a motion program and the caption that describes it.

The motion follows from the caption, so a denoiser need not average over possible futures. A
program is a camera path (pan, zoom, roll) and at most one act of the person (turn, nod, smile,
talk, blink); acts are smooth warps around the face. All lengths are shares of the crop or of the
face, so the same program suits every resolution.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional

SPEEDS: dict[str, float] = {"slowly": 0.6, "": 1.0, "quickly": 1.5}
CAMERAS: tuple[str, ...] = (
    "pans left",
    "pans right",
    "pans up",
    "pans down",
    "zooms in",
    "zooms out",
    "rolls left",
    "rolls right",
)
ACTS: tuple[str, ...] = (
    "turns the head left",
    "turns the head right",
    "nods",
    "smiles",
    "talks",
    "blinks",
)

PAN = 0.026  # shift over the clip at normal speed, share of the crop's side
ZOOM = 0.035  # change of scale over the clip at normal speed
ROLL = 2.2  # turn over the clip at normal speed, degrees
TURN = 0.055  # shift of the middle of the face in a turn, share of the face's height
NOD = 0.055  # the same for the lowest point of a nod

# How far talking, blinking and nodding have gone in each fifth of a clip, 0 to 1.
TALK_CURVE = (0.0, 0.8, 0.3, 1.0, 0.4)
BLINK_CURVE = (0.0, 0.6, 1.0, 0.6, 0.0)
NOD_CURVE = (0.0, 0.6, 1.0, 0.7, 0.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
    """Where a face is in its picture; shares of the picture's side, origin top left."""

    x: float = 0.52  # centre of the face
    y: float = 0.44  # centre of the face, about the bridge of the nose
    height: float = 0.42  # brow to chin

    def __post_init__(self) -> None:
        """Refuse faces without extent."""
        if self.height <= 0:
            raise ValueError(f"height arrived as {self.height}; expected above 0; pass a share.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One motion and its words."""

    camera: str | None = None  # one of CAMERAS; None keeps the camera still
    act: str | None = None  # one of ACTS; None lets the person be still
    speed: str = ""  # one of SPEEDS

    def __post_init__(self) -> None:
        """Refuse words without a meaning."""
        if self.camera not in (None, *CAMERAS) or self.act not in (None, *ACTS):
            raise ValueError(
                f"camera={self.camera!r}, act={self.act!r} arrived; expected one of {CAMERAS} and "
                f"one of {ACTS}, or None; choose from these."
            )
        if self.speed not in SPEEDS:
            raise ValueError(f"speed arrived as {self.speed!r}; expected one of {tuple(SPEEDS)}.")

    @property
    def caption(self) -> str:
        """The sentence that stands for the motion."""
        parts = []
        if self.act is not None:
            parts.append(f"the person {self.act}")
        if self.camera is not None:
            parts.append(f"the camera {self.camera}")
        if not parts:
            return "the person is still"
        if self.speed:
            parts[-1] += f" {self.speed}"
        return " and ".join(parts)


def random_program(generator: torch.Generator) -> Program:
    """Camera only, act only, or both, at one of three speeds; a still one in 25."""
    kind, camera, act, speed = torch.rand(4, generator=generator).tolist()
    if kind < 0.04:
        return Program()
    return Program(
        camera=CAMERAS[int(camera * len(CAMERAS))] if kind < 0.40 or kind >= 0.75 else None,
        act=ACTS[int(act * len(ACTS))] if kind >= 0.40 else None,
        speed=tuple(SPEEDS)[int(speed * len(SPEEDS))],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """The square of the picture that the first frame shows; shares of the picture's side."""

    x: float = 0.5  # centre
    y: float = 0.5  # centre
    side: float = 0.9  # side


def _camera_grid(size: int, program: Program, progress: float, framing: Framing) -> Tensor:
    """Picture coordinates ``[size, size, 2]`` (x, y; shares) that a frame's pixels look at."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    amount = progress * SPEEDS[program.speed]
    verb, _, way = (program.camera or "").partition(" ")
    if verb == "zooms":
        factor = math.exp(-ZOOM * amount if way == "in" else ZOOM * amount)
        x, y = x * factor, y * factor
    elif verb == "rolls":
        angle = math.radians(ROLL * amount) * (1.0 if way == "left" else -1.0)
        x, y = (
            x * math.cos(angle) + y * math.sin(angle),
            y * math.cos(angle) - x * math.sin(angle),
        )
    elif verb == "pans":
        shift = PAN * amount
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[way]
        x, y = x + dx * shift, y + dy * shift
    return torch.stack([x * framing.side + framing.x, y * framing.side + framing.y], dim=-1)


def _bump(grid: Tensor, x: float, y: float, width: float, height: float) -> Tensor:
    """A smooth hill, 1 at its centre, ``width`` and ``height`` its deviations."""
    across, down = (grid[..., 0] - x) / width, (grid[..., 1] - y) / height
    return torch.exp(-0.5 * (across.square() + down.square()))


def _act_shift(grid: Tensor, program: Program, frame: float, face: Face) -> Tensor:
    """How far the picture under ``grid`` has moved, ``[H, W, 2]``; ``frame`` runs from 0 to 4."""
    speed, tall = SPEEDS[program.speed], face.height
    shift = torch.zeros_like(grid)
    act = program.act or ""
    if act.startswith("turns"):
        way = -1.0 if act.endswith("left") else 1.0
        hill = _bump(grid, face.x, face.y, 0.42 * tall, 0.62 * tall)
        shift[..., 0] = way * TURN * tall * speed * frame / 4 * hill
    elif act == "nods":
        hill = _bump(grid, face.x, face.y, 0.5 * tall, 0.55 * tall)
        shift[..., 1] = NOD * tall * speed * _curve(NOD_CURVE, frame) * hill
    elif act == "smiles":
        mouth = face.y + 0.33 * tall
        for way in (-1.0, 1.0):
            hill = _bump(grid, face.x + way * 0.17 * tall, mouth, 0.09 * tall, 0.09 * tall)
            shift[..., 0] += way * 0.075 * tall * speed * frame / 4 * hill
            shift[..., 1] -= 0.06 * tall * speed * frame / 4 * hill
    elif act == "talks":
        chin = _bump(grid, face.x, face.y + 0.46 * tall, 0.2 * tall, 0.12 * tall)
        shift[..., 1] = 0.10 * tall * min(speed, 1.3) * _curve(TALK_CURVE, frame) * chin
    elif act == "blinks":
        for way in (-1.0, 1.0):
            eye = (face.x + way * 0.19 * tall, face.y - 0.045 * tall)
            hill = _bump(grid, *eye, 0.1 * tall, 0.05 * tall)
            shift[..., 1] += 0.06 * tall * min(speed, 1.3) * _curve(BLINK_CURVE, frame) * hill
    return shift


def _curve(values: tuple[float, ...], frame: float) -> float:
    """Linear interpolation of a curve given at frames 0, 1, 2, ..."""
    low = min(int(frame), len(values) - 2)
    part = frame - low
    return values[low] * (1.0 - part) + values[low + 1] * part


def render(
    picture: Tensor,
    program: Program,
    *,
    framing: Framing,
    face: Face,
    frames: int = 5,
    size: int = 128,
) -> Tensor:
    """Render one clip.

    Args:
        picture: ``[3, S, S]`` float in [-1, 1].
        program: The motion.
        framing: What the first frame shows.
        face: Where the face is.
        frames: Number of frames; the motion is spread over all of them.
        size: Side of a frame in pixels.

    Returns:
        ``[frames, 3, size, size]`` in [-1, 1]; frame 0 is the picture without motion. Beyond the
        picture's edge its mirror image is shown.
    """
    grids = []
    for index in range(frames):
        progress = index / max(1, frames - 1)
        grid = _camera_grid(2 * size, program, progress, framing)
        # Looking back by the motion at the place looked at is the inverse of a small warp.
        grid = grid - _act_shift(grid, program, 4 * progress, face)
        grids.append(grid * 2 - 1)
    large = functional.grid_sample(
        picture[None].expand(frames, -1, -1, -1),
        torch.stack(grids),
        padding_mode="reflection",
        align_corners=False,
    )
    # Twice the resolution, then the mean of four pixels: fine detail does not flicker.
    return functional.avg_pool2d(large, 2)
