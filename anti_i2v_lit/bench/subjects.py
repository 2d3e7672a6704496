"""Photos in flight for measurements, made of one public-domain portrait."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from anti_i2v_lit.cloaking.build import build_loop, build_surrogates
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.settings import Settings


def device_of(settings: Settings) -> str:
    """Where a run with these settings would compute."""
    wanted = str(settings.trainer.get("accelerator", "auto"))
    return "cuda" if wanted in {"auto", "gpu", "cuda"} and torch.cuda.is_available() else "cpu"


def loop_of(settings: Settings) -> CloakLoop:
    """The product's loop with loaded surrogates."""
    device = device_of(settings)
    return build_loop(
        seed=settings.seed,
        attack=settings.attack,
        space=settings.space,
        surrogates=build_surrogates(
            settings.surrogates, device, settings.objectives, waiting=settings.ensemble.waiting
        ),
        framing=Framing(settings.framing),
        device=device,
        ensemble=settings.ensemble,
    )


def jobs_of(settings: Settings, loop: CloakLoop, count: int) -> list[PhotoJob]:
    """`count` different photos, not begun: the portrait shifted sideways."""
    size = loop.view_size
    return [_job(settings, loop, number, size) for number in range(count)]


def write_photos(folder: Path, count: int, side_px: int) -> None:
    """JPEG files of the shifted portrait, square."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = (_portrait(number) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels).resize((side_px, side_px))
        picture.save(folder / f"photo{number}.jpg", quality=92)


def _job(settings: Settings, loop: CloakLoop, number: int, size: tuple[int, int]) -> PhotoJob:
    photo = _portrait(number)
    canvas = loop.framing.to_canvas(photo, size)[None].to(device_of(settings)).contiguous()
    return PhotoJob(
        key=f"photo{number}",
        photo_size=(photo.shape[-2], photo.shape[-1]),
        canvas=canvas,
        faces=(),
        budget_8bit=settings.attack.budget_8bit,
    )


def _portrait(number: int) -> Tensor:
    pixels = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    return pixels.roll(37 * number, dims=-1)
