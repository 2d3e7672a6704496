"""The demo: one public-domain portrait, cloaked, and the clips made of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from anti_i2v_lit.bench.pictures import (
    Labelled,
    amplified,
    save_side_by_side,
    sheet,
    to_height,
)
from anti_i2v_lit.bench.plan import Interrupted
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.framing import Framing, View
from anti_i2v_lit.data.reading import read_photo
from anti_i2v_lit.evaluation.judge import Judge, build_judge, judge_file, weights_folder
from anti_i2v_lit.evaluation.pairs import pair
from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings

PHOTO_NAME = "astronaut.png"
CLIP_SEED = 1
_FACE_HEIGHTS = 2.4  # height of the crop that the clips are made of
_PICTURE_PX, _FRAME_PX, _FRAMES_SHOWN = 300, 175, 5
HONEST = (
    "What this shows: gradients through a frozen image-to-video model, a bounded change of the "
    "photo, and its effect on THAT model. The embedded model is small (128 px, trained in hours) "
    "and its clips are crude. A cloak made against it says little about large published models: "
    "to protect photos against those, give a published checkpoint, surrogates.0.path=FOLDER."
)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made.

    Attributes:
        picture: photo, cloak, residual and frames of both clips.
        animation: both clips side by side.
        lines: figures, one sentence each.
    """

    picture: Path
    animation: Path
    lines: tuple[str, ...]


def write_portrait(out: Path) -> Path:
    """Save scikit-image's portrait of Eileen Collins (NASA, public domain) as PNG, once."""
    path = out / PHOTO_NAME
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        Image.fromarray(astronaut()).save(partial, "PNG")
        partial.replace(path)
    return path


def make_demo(settings: Settings, generator: VideoGenerator, *, out: Path) -> Demo:
    """Cloak the portrait and show what the generator makes of photo and cloak.

    Args:
        settings: of the cloak.
        generator: the attacker's model.
        out: folder; a second call with the same settings cloaks nothing again.

    Raises:
        ValueError: wrong settings.
        PhotoFailure: the portrait was refused, e.g. because the gate is too strict.
        Interrupted: stopped by a signal; the same call continues.
    """
    source = SourceFile(key=PHOTO_NAME, path=write_portrait(out))
    folder = out / f"cloak-{settings.digest()[:8]}"
    code = cloak(settings, photos=[str(source.path)], out=folder)
    if code == EXIT_INTERRUPTED:
        raise Interrupted("demo")
    if code:
        raise PhotoFailure(f"the portrait was not cloaked; the reason is in {folder}/report.html")
    written = pair([source], folder).found[source.key]
    photo = read_photo(source, settings.reading).srgb()
    cloaked = read_photo(SourceFile(key=written.name, path=written), settings.reading).srgb()
    judge = build_judge(weights_folder(None), generator.encode)
    faces = judge.detector.detect(photo)
    framing = Framing(settings.framing)
    view = _portrait_view(photo, faces, generator.view_size)
    views = framing.render(torch.stack([photo, cloaked]), view, generator.view_size)
    prompt = settings.attack.prompt
    clips = generator.generate(views, [prompt, prompt], [CLIP_SEED, CLIP_SEED])
    picture, animation = out / "demo.png", out / "clips.gif"
    _page(photo, cloaked, clips).save(picture)
    named = [("clip from the photo", clips[0]), ("clip from the cloak", clips[1])]
    save_side_by_side(named, animation, 2 * _FRAME_PX)
    known = judge.know(photo, views[0], faces)
    figures = [judge.judge_clip(known, clip, clips[0]) for clip in clips]
    figures[1].update(judge.judge_latents(known, views[1]))
    lines = _lines(judge_file(photo, cloaked), figures, judge)
    return Demo(picture=picture, animation=animation, lines=tuple(lines))


def _portrait_view(photo: Tensor, faces: Sequence[Face], view_size: tuple[int, int]) -> View:
    """Head and shoulders, as an attacker crops a photo for a small model."""
    height, width = photo.shape[-2:]
    if not faces:
        raise PhotoFailure("no face was found on the bundled portrait; run anti-i2v doctor")
    left, top, right, bottom = faces[0].box
    tall = min(height, _FACE_HEIGHTS * (bottom - top) * height)
    wide = min(width, tall * view_size[1] / view_size[0])
    x = min(max((left + right) / 2 * width, wide / 2), width - wide / 2)
    y = min(max((top + bottom) / 2 * height, tall / 2), height - tall / 2)
    box = (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)
    shares = [edge / side for edge, side in zip(box, (width, height) * 2, strict=True)]
    first, second, third, fourth = (min(max(share, 0.0), 1.0) for share in shares)
    return View(kind="face", box=(first, second, third, fourth))


def _page(photo: Tensor, cloaked: Tensor, clips: Tensor) -> Image.Image:
    count = clips.shape[1]
    shown = sorted({round(i * (count - 1) / (_FRAMES_SHOWN - 1)) for i in range(_FRAMES_SHOWN)})
    top: list[Labelled] = [
        ("photo", to_height(photo, _PICTURE_PX)),
        ("cloak", to_height(cloaked, _PICTURE_PX)),
        ("residual x10", to_height(amplified(cloaked - photo), _PICTURE_PX)),
    ]
    rows = [top]
    for name, clip in zip(("photo", "cloak"), clips, strict=True):
        rows.append(
            [(f"from the {name}, frame {i + 1}", to_height(clip[i], _FRAME_PX)) for i in shown]
        )
    return sheet(rows)


def _lines(
    visible: Mapping[str, float], figures: Sequence[Mapping[str, float]], judge: Judge
) -> list[str]:
    clean, cloaked = figures
    lines = [
        f"cloak: PSNR {visible['psnr']:.1f} dB, CIEDE2000 {visible['ciede2000']:.2f}, largest "
        f"change {visible['max_change_8bit']:.0f} grey levels",
        f"its latent moved by {cloaked['shift_own']:.2f} standard deviations",
        f"its clip against the photo's clip: PSNR {cloaked['clip_psnr']:.1f} dB, LPIPS "
        f"{cloaked['clip_lpips']:.2f}",
        f"frames without a detected face: photo {_percent(clean['fdfr'])}, cloak "
        f"{_percent(cloaked['fdfr'])}",
    ]
    for name in judge.embedders:
        column = f"{name}_mean_zero"
        lines.append(
            f"face similarity to the photo ({name}, frames without a face count 0): photo's clip "
            f"{clean[column]:.2f}, cloak's clip {cloaked[column]:.2f}"
        )
    if not judge.embedders:
        lines.append("face similarity: absent (no face network in $ANTI_I2V_DATA/models)")
    return lines


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"
