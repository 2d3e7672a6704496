"""Which layers of a denoiser see people: features of portraits, block by block.

The authors of Anti-I2V chose layers by looking at principal components of block features. Here
every block is measured at several timesteps and noises, on clean portraits seen through shifted,
mirrored and recoloured views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_between
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.data.framing import Framing, FramingConfig, View
from anti_i2v_lit.evaluation.layer_statistics import (
    comparable_tokens,
    departure,
    discrimination,
    separation,
    token_grid,
)
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.surrogates.base import Surrogate

# Faces may stand anywhere in a view, so that position does not tell them from the background.
_FRAMING = FramingConfig(
    crop_weight=0, letterbox_weight=0, stretch_weight=0, face_weight=1,
    face_scale_low=1.8, face_scale_high=3.5, jitter=0.3,
)  # fmt: skip
# Grey around the photo, as a share of its shorter side: lets a portrait's face leave the middle.
_MARGIN = 0.3
# Share of a token's cell that makes it one of the face, or one of the photo; cells can be coarse.
_FACE_SHARE, _PHOTO_SHARE = 0.3, 0.5
# Largest gain or loss of a colour channel: what separates people must not be their lighting.
_COLOUR_GAIN = 0.25


@dataclass(kw_only=True)
class LayersConfig:
    """How much is looked at.

    Attributes:
        views: views per photo.
        timestep_shares: timesteps, as shares of the training schedule.
        num_noises: noises per timestep; the spread of the table is over timesteps and noises.
        max_cells: rows and columns that a layer's tokens are averaged down to.
        max_channels: channels kept of a wider layer, drawn once per width.
        prompt: text condition.
        seed: of views, noises and channels.
    """

    views: int = 4
    timestep_shares: list[float] = field(default_factory=lambda: [0.1, 0.35, 0.6, 0.85])
    num_noises: int = 2
    max_cells: int = 16
    max_channels: int = 256
    prompt: str = "a person is talking"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse amounts that measure nothing."""
        check_at_least(self.views, 2, "views")
        check_at_least(self.num_noises, 1, "num_noises")
        check_at_least(self.max_cells, 2, "max_cells")
        check_at_least(self.max_channels, 2, "max_channels")
        check_at_least(len(self.timestep_shares), 1, "number of timesteps")
        for share in self.timestep_shares:
            check_between(share, 0.0, 1.0, "timestep share")


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One photo to look at.

    Attributes:
        key: stable name.
        photo: [3, H, W] in [0, 1], float32.
        face: its largest face.
    """

    key: str
    photo: Tensor
    face: Face


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """One denoiser tap.

    Attributes:
        tap: its name.
        face: held-out ROC area of face against background tokens; 0.5 is chance.
        face_spread: standard deviation of it over timesteps and noises.
        identity: ROC area of "same photo" against "another photo"; None for a single photo.
        identity_spread: standard deviation of it; None likewise.
        departure: 1 minus CKA to the shallow block.
        semantic: mean of the areas, rescaled to 0 for chance and 1 for perfect.
    """

    tap: str
    face: float
    face_spread: float
    identity: float | None
    identity_spread: float | None
    departure: float
    semantic: float


def shallow_tap(taps: Sequence[str]) -> str:
    """The published shallow block, the third; the first of a denoiser with fewer than six."""
    return taps[2] if len(taps) >= 6 else taps[0]


def measure_layers(
    surrogate: Surrogate,
    portraits: Sequence[Portrait],
    config: LayersConfig,
    listener: Callable[[str], None] = lambda line: None,
) -> list[LayerScore]:
    """Score every denoiser tap, shallow to deep.

    Args:
        surrogate: the model; taps are taken at clean photos, under its own noise.
        portraits: photos with a face; two or more people for the identity column.
        config: how much.
        listener: is told what is being done.

    Raises:
        ValueError: no photos, no denoiser taps, or faces without background.
    """
    if not portraits or not surrogate.denoiser_taps:
        raise ValueError(
            f"expected photos and denoiser taps, got {len(portraits)} photos with a face and "
            f"{len(surrogate.denoiser_taps)} taps"
        )
    seen = [
        _view_of(portrait, number, surrogate.view_size, config)
        for portrait in portraits
        for number in range(config.views)
    ]
    owners = torch.arange(len(portraits)).repeat_interleave(config.views)
    # Views of one photo stay together where there are several photos, so that a probe never
    # sees the person it is judged on.
    folds = owners % 2 if len(portraits) > 1 else torch.arange(len(seen)) % 2
    found: dict[str, list[tuple[float, float | None, float]]] = {}
    for share in config.timestep_shares:
        for noise in range(config.num_noises):
            listener(f"timestep {share:g} of the schedule, noise {noise}: {len(seen)} views")
            features = _features(surrogate, seen, share, noise, config)
            for tap, values in _judged(features, seen, owners, folds).items():
                found.setdefault(tap, []).append(values)
    return [_score(tap, found[tap]) for tap in surrogate.denoiser_taps]


_Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """One view [3, H, W] in [0, 1]; face and photo in it, in shares of the view."""

    key: str
    pixels: Tensor
    face: _Rectangle
    photo: _Rectangle


def _view_of(portrait: Portrait, number: int, size: tuple[int, int], config: LayersConfig) -> _Seen:
    height, width = portrait.photo.shape[-2:]
    margin = round(_MARGIN * min(height, width))
    padded = F.pad(portrait.photo, (margin,) * 4, value=0.5)
    padded_size = (height + 2 * margin, width + 2 * margin)
    shift, scale = (
        (margin / padded_size[1], margin / padded_size[0]),
        (
            width / padded_size[1],
            height / padded_size[0],
        ),
    )
    x0, y0, x1, y1 = portrait.face.box
    box = (
        shift[0] + scale[0] * x0, shift[1] + scale[1] * y0,
        shift[0] + scale[0] * x1, shift[1] + scale[1] * y1,
    )  # fmt: skip
    framing = Framing(_FRAMING)
    generator = generator_for(config.seed, portrait.key, number, "layer view")
    face = Face(box=box, score=portrait.face.score, landmarks=())
    view = framing.draw_view(padded_size, size, [face], generator)
    pixels = framing.render(padded[None], view, size)[0]
    gains = 1 + _COLOUR_GAIN * (2 * torch.rand(3, 1, 1, generator=generator) - 1)
    shown = _within(box, view), _within((*shift, 1 - shift[0], 1 - shift[1]), view)
    if number % 2:
        pixels = pixels.flip(-1)
        shown = _mirrored(shown[0]), _mirrored(shown[1])
    return _Seen(
        key=f"{portrait.key}#{number}",
        pixels=(pixels * gains).clamp(0, 1).contiguous(),
        face=shown[0],
        photo=shown[1],
    )


def _within(box: _Rectangle, view: View) -> _Rectangle:
    left, top, right, bottom = view.box
    width, height = right - left, bottom - top
    x0, y0, x1, y1 = box
    return ((x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height)


def _mirrored(box: _Rectangle) -> _Rectangle:
    return (1 - box[2], box[1], 1 - box[0], box[3])


@torch.no_grad()
def layer_maps(
    surrogate: Surrogate, pixels: Tensor, key: str, share: float, noise: int, config: LayersConfig
) -> dict[str, Tensor]:
    """Tap -> features [rows, columns, D] of one view, averaged over the clip's frames.

    Args:
        surrogate: the model.
        pixels: view [3, H, W] in [0, 1].
        key: names the noise.
        share: timestep, as a share of the schedule.
        noise: number of the noise.
        config: prompt and seed.
    """
    views = pixels[None].to(surrogate.device)
    clips = views[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generator = generator_for(config.seed, key, noise, f"layer noise {share:g}")
    latents = surrogate.encode_clip(clips)
    draw = surrogate.draw(latents, [generator], [config.prompt], (share, share))
    taps = frozenset(surrogate.denoiser_taps)
    condition = surrogate.condition(views, frozenset(), draw)
    features = surrogate.denoise(condition, draw, taps, False).features
    shape = (latents.shape[1], latents.shape[-2], latents.shape[-1])
    return {
        tap: tokens[0].unflatten(0, token_grid(tokens.shape[1], shape)).float().mean(dim=0)
        for tap, tokens in features.items()
    }


def _features(
    surrogate: Surrogate, seen: Sequence[_Seen], share: float, noise: int, config: LayersConfig
) -> dict[str, Tensor]:
    """Tap -> [V, rows, columns, D] on the CPU, averaged down to the configured size."""
    kept: dict[str, list[Tensor]] = {tap: [] for tap in surrogate.denoiser_taps}
    for view in seen:
        maps = layer_maps(surrogate, view.pixels, view.key, share, noise, config)
        for tap, values in maps.items():
            kept[tap].append(_reduced(values, config).cpu())
    return {tap: torch.stack(values) for tap, values in kept.items()}


def _reduced(values: Tensor, config: LayersConfig) -> Tensor:
    rows, columns, width = values.shape
    if width > config.max_channels:
        generator = generator_for(config.seed, str(width), 0, "layer channels")
        chosen = torch.randperm(width, generator=generator)[: config.max_channels]
        # Normalised before channels go: a few channels carry most of a residual stream.
        values = F.layer_norm(values, (width,))[..., chosen.to(values.device)]
    size = (min(rows, config.max_cells), min(columns, config.max_cells))
    return F.adaptive_avg_pool2d(values.permute(2, 0, 1), size).permute(1, 2, 0)


def _judged(
    features: dict[str, Tensor], seen: Sequence[_Seen], owners: Tensor, folds: Tensor
) -> dict[str, tuple[float, float | None, float]]:
    """Tap -> (face, identity, departure) at one timestep and noise."""
    reference = features[shallow_tap(tuple(features))]
    judged = {}
    for tap, values in features.items():
        rows, columns = values.shape[1:3]
        tokens = values.flatten(1, 2)
        labels = _cells([view.face for view in seen], rows, columns, _FACE_SHARE)
        used = _cells([view.photo for view in seen], rows, columns, _PHOTO_SHARE)
        identity = None
        if len(owners.unique()) > 1:
            means = _face_means(comparable_tokens(tokens, used), labels)
            identity = discrimination(means, owners)
        judged[tap] = (
            separation(tokens, labels, used, folds),
            identity,
            _departure(values, reference, seen),
        )
    return judged


def _cells(boxes: Sequence[_Rectangle], rows: int, columns: int, share: float) -> Tensor:
    """[V, rows * columns] bool: at least this share of the cell lies in the view's rectangle."""
    covered = []
    for left, top, right, bottom in boxes:
        down = _overlaps(top, bottom, rows)[:, None] * _overlaps(left, right, columns)[None, :]
        covered.append(down.flatten() >= share)
    return torch.stack(covered)


def _overlaps(low: float, high: float, count: int) -> Tensor:
    """Share of each of `count` equal parts of [0, 1] that lies in [low, high]."""
    edges = torch.linspace(0, 1, count + 1)
    inner = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
    return inner.clamp_min(0) * count


def _face_means(tokens: Tensor, labels: Tensor) -> Tensor:
    """Mean over the face [V, D]; over the whole view where no cell's centre is inside."""
    weights = torch.where(labels.any(dim=1, keepdim=True), labels, True).float()
    return (weights[..., None] * tokens).sum(dim=1) / weights.sum(dim=1, keepdim=True)


def _departure(values: Tensor, reference: Tensor, seen: Sequence[_Seen]) -> float:
    """How far a block went from the shallow one, on the coarser of the two grids."""
    rows = min(values.shape[1], reference.shape[1])
    columns = min(values.shape[2], reference.shape[2])
    used = _cells([view.photo for view in seen], rows, columns, _PHOTO_SHARE)
    tokens = [
        F.adaptive_avg_pool2d(part.permute(0, 3, 1, 2), (rows, columns)).flatten(2).transpose(1, 2)
        for part in (values, reference)
    ]
    return departure(*(comparable_tokens(part, used) for part in tokens))


def _score(tap: str, values: Sequence[tuple[float, float | None, float]]) -> LayerScore:
    faces = [face for face, _, _ in values]
    identities = [identity for _, identity, _ in values if identity is not None]
    areas = [fmean(faces), *([fmean(identities)] if identities else [])]
    return LayerScore(
        tap=tap,
        face=fmean(faces),
        face_spread=pstdev(faces),
        identity=fmean(identities) if identities else None,
        identity_spread=pstdev(identities) if identities else None,
        departure=fmean(gone for _, _, gone in values),
        semantic=2 * fmean(areas) - 1,
    )
