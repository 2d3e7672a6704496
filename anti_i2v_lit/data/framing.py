"""Canvas and views: where the perturbation lives and what a surrogate sees of it.

The canvas is the whole photo at working resolution. A view is a box of it, resized as an
attacker's pipeline would. Boxes are shares of the photo, so one view means the same on the
canvas and on the photo in full size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_between, check_in
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.ops.resize import Box, check_box, clamp_straight_through, crop_resize, resize

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
VIEW_KINDS = ("crop", "face", "letterbox", "stretch")
"""Kinds of views; `FramingConfig` weighs each."""


@dataclass(kw_only=True)
class FramingConfig:
    """Settings of canvas and views.

    Attributes:
        canvas_side_px: shorter side of the canvas, in pixels; raised where the surrogate's view
            needs more, never beyond the photo's own size.
        crop_weight: relative frequency of crops to the view's aspect ratio.
        face_weight: relative frequency of crops around a face; whole letterboxed frames
            where no face is known.
        letterbox_weight: relative frequency of the whole frame between black bars.
        stretch_weight: relative frequency of the whole frame squashed to the view's shape.
        face_scale_low: height of the tightest face crop, in face heights.
        face_scale_high: height of the widest face crop, in face heights.
        jitter: largest random shift of a crop in each direction, as a share of its sides;
            crops to the aspect ratio shrink by up to the same share.
    """

    canvas_side_px: int = 256
    crop_weight: float = 0.4
    face_weight: float = 0.4
    letterbox_weight: float = 0.1
    stretch_weight: float = 0.1
    face_scale_low: float = 1.5
    face_scale_high: float = 4.0
    jitter: float = 0.05

    def __post_init__(self) -> None:
        """Refuse values without meaning.

        Raises:
            ValueError: naming the field, the value and its bounds.
        """
        check_at_least(self.canvas_side_px, 16, "framing.canvas_side_px")
        check_between(self.face_scale_low, 1.0, 100.0, "framing.face_scale_low")
        check_between(self.face_scale_high, self.face_scale_low, 100.0, "framing.face_scale_high")
        check_between(self.jitter, 0.0, 0.5, "framing.jitter")
        for kind, weight in self.weights.items():
            check_between(weight, 0.0, 1e6, f"framing.{kind}_weight")
        if sum(self.weights.values()) == 0.0:
            raise ValueError("framing: all view weights are 0; give at least one kind a weight")

    @property
    def weights(self) -> dict[str, float]:
        """Kind of view -> relative frequency, in the order of `VIEW_KINDS`."""
        return {kind: getattr(self, f"{kind}_weight") for kind in VIEW_KINDS}


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to look at a photo.

    Attributes:
        kind: one of `VIEW_KINDS`.
        box: left, top, right, bottom as shares of the photo's width and height, in [0, 1].
        letterbox: keep the box's proportions between black bars, instead of filling the view.

    Raises:
        ValueError: unknown kind, empty box, or one outside the photo.
    """

    kind: str
    box: Box
    letterbox: bool = False

    def __post_init__(self) -> None:
        check_in(self.kind, VIEW_KINDS, "view kind")
        check_box(self.box)


class _Window(NamedTuple):
    """Centre and size of a crop, in pixels of the photo."""

    x: float
    y: float
    width: float
    height: float


class _Uniforms(NamedTuple):
    """All that one view draws, in [0, 1]: every kind takes the same count from a generator."""

    kind: float
    face: float
    scale: float
    x: float
    y: float


def size_for_view(
    size: tuple[int, int], view_size: tuple[int, int], least_scale: float = 0.0
) -> tuple[int, int]:
    """The smallest size of a picture whose largest crop still fills a view; at most its own.

    Args:
        size: of the picture, (H, W) in pixels.
        view_size: of the view, (H, W) in pixels.
        least_scale: smallest factor that is allowed, whatever the view.
    """
    height, width = size
    scale = max(least_scale, view_size[0] / height, view_size[1] / width)
    if scale >= 1.0:
        return height, width
    return max(1, round(height * scale)), max(1, round(width * scale))


class Framing:
    """Geometry between photo, canvas and view. Sizes are (H, W) in pixels."""

    Config = FramingConfig

    def __init__(self, config: FramingConfig) -> None:
        self.config = config

    def canvas_size(
        self, photo_size: tuple[int, int], view_size: tuple[int, int]
    ) -> tuple[int, int]:
        """Return the canvas size for a photo.

        The shorter side is `canvas_side_px`, or as much more as lets the largest crop of the
        view's aspect ratio fill the view without upscaling; at most the photo's own size.

        Raises:
            ValueError: a side below one pixel.
        """
        _check_size(photo_size, "photo")
        _check_size(view_size, "view")
        return size_for_view(photo_size, view_size, self.config.canvas_side_px / min(photo_size))

    def to_canvas(self, photo: Tensor, view_size: tuple[int, int]) -> Tensor:
        """Downscale a photo [3, H, W] to its canvas [3, h, w] in [0, 1], antialiased.

        Raises:
            ValueError: wrong shape.
        """
        size = self.canvas_size(_size_of(photo, "photo"), view_size)
        return resize(photo[None], size)[0].clamp(0.0, 1.0)

    def to_photo(self, residual: Tensor, photo_size: tuple[int, int]) -> Tensor:
        """Upscale a residual [3, h, w] smoothly to [3, H, W].

        Bicubic, clamped to the residual's own range per channel: no pixel of the photo changes
        more than some pixel of the canvas did, and no change stays no change.

        Raises:
            ValueError: wrong shape, or a photo smaller than the canvas.
        """
        height, width = _size_of(residual, "residual")
        if photo_size[0] < height or photo_size[1] < width:
            raise ValueError(
                f"residual: {(height, width)} pixels do not fit into a photo of {photo_size}; "
                "the canvas is never larger than its photo"
            )
        low = residual.amin(dim=(1, 2), keepdim=True)
        high = residual.amax(dim=(1, 2), keepdim=True)
        return resize(residual[None], photo_size)[0].clamp(low, high)

    def main_view(
        self, photo_size: tuple[int, int], view_size: tuple[int, int], faces: Sequence[Face]
    ) -> View:
        """Return the largest crop of the view's aspect ratio: what evaluation looks at.

        Central, or moved as little as contains the largest face; a face larger than the crop
        is centred.

        Raises:
            ValueError: a side below one pixel.
        """
        _check_size(photo_size, "photo")
        window = _largest_window(photo_size, view_size)
        return View(kind="crop", box=_box(window, photo_size, _largest(faces)))

    def draw_view(
        self,
        photo_size: tuple[int, int],
        view_size: tuple[int, int],
        faces: Sequence[Face],
        generator: torch.Generator,
    ) -> View:
        """Draw one view; the same generator state gives the same view.

        Args:
            photo_size: of the photo (its canvas gives the same shares up to rounding).
            view_size: of the surrogate's views.
            faces: of the photo; face crops take one, drawn by area.
            generator: CPU generator; five uniform numbers are taken from it for every kind.

        Raises:
            ValueError: a side below one pixel.
        """
        _check_size(photo_size, "photo")
        uniforms = _Uniforms(*torch.rand(5, generator=generator, dtype=torch.float64).tolist())
        weights = self.config.weights
        kind = VIEW_KINDS[_pick(list(weights.values()), uniforms.kind)]
        if kind == "stretch":
            return View(kind=kind, box=_WHOLE)
        if kind == "letterbox" or (kind == "face" and not faces):
            return View(kind="letterbox", box=_WHOLE, letterbox=True)
        if kind == "crop":
            return self._draw_crop(photo_size, view_size, faces, uniforms)
        return self._draw_face(photo_size, view_size, faces, uniforms)

    def render(self, image: Tensor, view: View, view_size: tuple[int, int]) -> Tensor:
        """Show a view of images, differentiably.

        Bicubic and antialiased; overshoot is clipped, with the gradient passed straight
        through, so every pixel inside the box gets a gradient and none outside.

        Args:
            image: [B, 3, h, w] in [0, 1]: canvases, or photos in full size.
            view: which part, and how.
            view_size: (H, W) in pixels.

        Returns:
            [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: wrong shape or size.
        """
        _check_size(view_size, "view")
        if not view.letterbox:
            return clamp_straight_through(crop_resize(image, view.box, view_size))
        left, top, right, bottom = view.box
        height = (bottom - top) * image.shape[-2]
        width = (right - left) * image.shape[-1]
        scale = min(view_size[0] / height, view_size[1] / width)
        inner = (max(1, round(height * scale)), max(1, round(width * scale)))
        shown = clamp_straight_through(crop_resize(image, view.box, inner))
        above, before = (view_size[0] - inner[0]) // 2, (view_size[1] - inner[1]) // 2
        below, after = view_size[0] - inner[0] - above, view_size[1] - inner[1] - before
        return F.pad(shown, (before, after, above, below))

    def _draw_crop(
        self,
        photo_size: tuple[int, int],
        view_size: tuple[int, int],
        faces: Sequence[Face],
        uniforms: _Uniforms,
    ) -> View:
        """Jitter the main view: a little smaller, a little off, the largest face inside."""
        main = self.main_view(photo_size, view_size, faces).box
        whole = _window(main, photo_size)
        shrink = 1.0 - self.config.jitter * uniforms.scale
        window = whole._replace(width=whole.width * shrink, height=whole.height * shrink)
        window = self._shifted(window, uniforms)
        return View(kind="crop", box=_box(window, photo_size, _largest(faces)))

    def _draw_face(
        self,
        photo_size: tuple[int, int],
        view_size: tuple[int, int],
        faces: Sequence[Face],
        uniforms: _Uniforms,
    ) -> View:
        """Crop around one face at a drawn scale, shifted a little, the face inside."""
        face = faces[_pick([face.area for face in faces], uniforms.face)]
        seen = _window(face.box, photo_size)
        ratio = self.config.face_scale_high / self.config.face_scale_low
        height = seen.height * self.config.face_scale_low * ratio**uniforms.scale
        aspect = view_size[1] / view_size[0]
        # A tall view of a wide face: the face decides by its width.
        height = max(height, seen.width / aspect)
        limit = _largest_window(photo_size, view_size)
        height = min(height, limit.height)
        window = seen._replace(width=min(height * aspect, limit.width), height=height)
        window = self._shifted(window, uniforms)
        return View(kind="face", box=_box(window, photo_size, face))

    def _shifted(self, window: _Window, uniforms: _Uniforms) -> _Window:
        """Move a window by up to `jitter` of its sides in each direction."""
        return window._replace(
            x=window.x + self.config.jitter * (2.0 * uniforms.x - 1.0) * window.width,
            y=window.y + self.config.jitter * (2.0 * uniforms.y - 1.0) * window.height,
        )


def _largest_window(photo_size: tuple[int, int], view_size: tuple[int, int]) -> _Window:
    """Return the largest central window of the view's aspect ratio."""
    _check_size(view_size, "view")
    height, width = photo_size
    scale = min(height / view_size[0], width / view_size[1])
    return _Window(
        width / 2, height / 2, min(width, view_size[1] * scale), min(height, view_size[0] * scale)
    )


def _window(box: Box, photo_size: tuple[int, int]) -> _Window:
    height, width = photo_size
    left, top, right, bottom = box
    return _Window(
        (left + right) / 2 * width,
        (top + bottom) / 2 * height,
        (right - left) * width,
        (bottom - top) * height,
    )


def _box(window: _Window, photo_size: tuple[int, int], face: Face | None) -> Box:
    """Shares of a window, moved as little as holds the face (if any) and stays in the photo."""
    height, width = photo_size
    face_x = (face.box[0], face.box[2]) if face else None
    face_y = (face.box[1], face.box[3]) if face else None
    left, right = _placed(window.x / width, window.width / width, face_x)
    top, bottom = _placed(window.y / height, window.height / height, face_y)
    return left, top, right, bottom


def _largest(faces: Sequence[Face]) -> Face | None:
    return max(faces, key=lambda face: face.area, default=None)


def _placed(centre: float, length: float, held: tuple[float, float] | None) -> tuple[float, float]:
    """Place an interval of [0, 1] near `centre`, holding another one where it fits."""
    length = min(length, 1.0)
    low = centre - length / 2
    if held is not None and held[1] - held[0] <= length:
        low = min(max(low, held[1] - length), held[0])
    elif held is not None:
        low = (held[0] + held[1] - length) / 2
    low = min(max(low, 0.0), 1.0 - length)
    return low, min(low + length, 1.0)


def _pick(weights: Sequence[float], uniform: float) -> int:
    """Index drawn in proportion to `weights` by one number in [0, 1)."""
    target = uniform * math.fsum(weights)
    for index, weight in enumerate(weights):
        target -= weight
        if target < 0.0:
            return index
    # Rounding alone leads here: the last index that can be drawn at all.
    return max(index for index, weight in enumerate(weights) if weight > 0.0)


def _size_of(image: Tensor, name: str) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"{name}: expected shape [3, H, W], got {tuple(image.shape)}")
    return image.shape[1], image.shape[2]


def _check_size(size: tuple[int, int], name: str) -> None:
    for side, axis in zip(size, ("height", "width"), strict=True):
        check_at_least(side, 1, f"{name} {axis} in pixels")
