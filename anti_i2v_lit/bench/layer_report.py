"""`anti-i2v layers`: photos in, table, pictures of components, results and settings out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from anti_i2v_lit.bench.pictures import Labelled, sheet
from anti_i2v_lit.bench.plan import choose_photos
from anti_i2v_lit.bench.subjects import device_of
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.build import build_surrogates
from anti_i2v_lit.data.faces import Face, FaceDetector
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.data.reading import read_photo
from anti_i2v_lit.evaluation.layer_choice import (
    TapChoice,
    as_plain,
    automatic_taps,
    layer_table,
    propose_taps,
    with_taps,
)
from anti_i2v_lit.evaluation.layer_statistics import components_as_colours
from anti_i2v_lit.evaluation.layers import (
    LayersConfig,
    LayerScore,
    Portrait,
    layer_maps,
    measure_layers,
)
from anti_i2v_lit.settings import Settings
from anti_i2v_lit.surrogates.base import Surrogate

_PICTURE_PX, _PER_ROW = 128, 7
_FACE_HEIGHTS = 2.4  # height of the crop in the picture of components


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What was written.

    Attributes:
        text: table and proposal, Markdown.
        picture: principal components of every block, PNG.
        results: everything measured, JSON.
        settings: a configuration file with the proposed taps, YAML.
    """

    text: str
    picture: Path
    results: Path
    settings: Path


def report_layers(
    settings: Settings,
    config: LayersConfig,
    *,
    photos: Path | None,
    count: int,
    out: Path,
    listener: Callable[[str], None],
) -> LayerReport:
    """Measure the layers of the first surrogate of the settings.

    Args:
        settings: surrogate, objectives, face detector, reading.
        config: how much is measured.
        photos: folder of portraits; None for one public-domain portrait.
        count: photos, evenly spaced by name; 0 for all.
        out: folder of the results; made if missing.
        listener: is told what is being done.

    Raises:
        ValueError: no photo with a face, or a model without layers to choose from.
    """
    detector = FaceDetector(settings.faces)
    pictures = _pictures(photos, out, count, settings)
    portraits = [found for key, photo in pictures if (found := _portrait(detector, key, photo))]
    if len(portraits) < len(pictures):
        listener(f"{len(pictures) - len(portraits)} photos without a face are left out")
    if not portraits:
        raise ValueError("no face was found in any photo; expected portraits")
    node = settings.surrogates[0]
    surrogate = build_surrogates([node], device_of(settings))[0].surrogate
    scores = measure_layers(surrogate, portraits, config, listener)
    choice = propose_taps(scores)
    text = _text(node, len(portraits), config, scores, choice)
    out.mkdir(parents=True, exist_ok=True)
    picture, results, chosen = out / "components.png", out / "results.json", out / "taps.yaml"
    component_sheet(surrogate, portraits[0], config).save(picture)
    measured = {"surrogate": node, "config": vars(config), "photos": len(portraits)}
    results.write_text(
        json.dumps({**measured, **as_plain(scores, choice)}, indent=1) + "\n", encoding="utf-8"
    )
    chosen.write_text(with_taps(choice, node, settings.objectives), encoding="utf-8")
    return LayerReport(text=text, picture=picture, results=results, settings=chosen)


def _text(
    node: Mapping[str, Any],
    num_photos: int,
    config: LayersConfig,
    scores: Sequence[LayerScore],
    choice: TapChoice,
) -> str:
    heading = (
        f"{node['name']} ({node.get('path') or 'random weights'}): {num_photos} photos x "
        f"{config.views} views, timesteps at "
        f"{', '.join(f'{share:g}' for share in config.timestep_shares)} of the schedule x "
        f"{config.num_noises} noises; ± over timesteps and noises"
    )
    automatic = automatic_taps([score.tap for score in scores])
    return "\n".join(
        [
            heading,
            "",
            layer_table(scores),
            "",
            _taps("Proposed by this measurement", choice),
            _taps("Taken when none are configured", automatic),
        ]
    )


def component_sheet(surrogate: Surrogate, portrait: Portrait, config: LayersConfig) -> Image.Image:
    """First three principal components of every block's tokens as colours, one page."""
    share = config.timestep_shares[len(config.timestep_shares) // 2]
    size = surrogate.view_size
    pixels = _close_up(portrait, size)
    maps = layer_maps(surrogate, pixels, portrait.key, share, 0, config)
    cells: list[Labelled] = [("photo", _enlarged(pixels, size))]
    cells += [
        (tap, _enlarged(components_as_colours(values).cpu(), size)) for tap, values in maps.items()
    ]
    return sheet([cells[i : i + _PER_ROW] for i in range(0, len(cells), _PER_ROW)])


def _close_up(portrait: Portrait, size: tuple[int, int]) -> Tensor:
    """The face and what is around it, at the view's aspect ratio."""
    framing = Framing(
        Framing.Config(
            crop_weight=0,
            letterbox_weight=0,
            stretch_weight=0,
            face_weight=1,
            jitter=0.0,
            face_scale_low=_FACE_HEIGHTS,
            face_scale_high=_FACE_HEIGHTS,
        )  # fmt: skip
    )
    photo_size = (portrait.photo.shape[-2], portrait.photo.shape[-1])
    view = framing.draw_view(photo_size, size, [portrait.face], torch.Generator().manual_seed(0))
    return framing.render(portrait.photo[None], view, size)[0]


def _enlarged(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Square cells, not blurred: a cell is a token."""
    width = max(1, round(_PICTURE_PX * size[1] / size[0]))
    return torch.nn.functional.interpolate(image[None], (_PICTURE_PX, width), mode="nearest")[0]


def _pictures(
    photos: Path | None, out: Path, count: int, settings: Settings
) -> list[tuple[str, Tensor]]:
    if photos is None:
        return [("astronaut", torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255)]
    found: list[tuple[str, Tensor]] = []
    for source in choose_photos(photos, out, count):
        try:
            found.append((source.key, read_photo(source, settings.reading).srgb()))
        except PhotoFailure as failure:
            raise ValueError(f"{source.path}: {failure}") from failure
    return found


def _portrait(detector: FaceDetector, key: str, photo: Tensor) -> Portrait | None:
    faces: Sequence[Face] = detector.detect(photo.contiguous())
    return Portrait(key=key, photo=photo.contiguous(), face=faces[0]) if faces else None


def _taps(label: str, choice: TapChoice) -> str:
    return (
        f"{label}: IRC {', '.join(choice.deep)} down to {choice.shallow}; "
        f"IRA {', '.join(choice.anchor)}."
    )
