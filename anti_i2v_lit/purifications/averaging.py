"""Averaging several cloaks of one photo, as somebody could who finds it posted more than once.

Differently seeded cloaks differ, so their mean keeps only what they share. It needs several files
of one photo, so it is no `Purification`: average folders first, then judge the folder of means
like any other protection:

    python -m anti_i2v_lit.purifications.averaging CLOAKED_SEED_0 CLOAKED_SEED_1 ... --out MEANS
    anti-i2v evaluate --clean PHOTOS --cloaked one=CLOAKED_SEED_0 --cloaked mean=MEANS --out DIR

Source: none found for cloaks; averaging copies is the classic collusion attack on watermarks, Cox
et al. 1997, "Secure Spread Spectrum Watermarking for Multimedia", section V.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from anti_i2v_lit.purifications.training_photos import picture_files


def average_cloaks(paths: Sequence[Path]) -> Tensor:
    """The mean of several files of one photo.

    Args:
        paths: at least two 8-bit pictures of one size; turned upright by their orientation tags.

    Returns:
        [3, H, W] in [0, 1], not rounded.

    Raises:
        ValueError: fewer than two files, or sizes that differ.
    """
    if len(paths) < 2:
        raise ValueError(f"expected at least two cloaks of a photo, got {len(paths)}")
    photos = [_upright(path) for path in paths]
    sizes = {tuple(photo.shape) for photo in photos}
    if len(sizes) > 1:
        raise ValueError(f"{paths[0].name}: cloaks of one photo differ in size: {sorted(sizes)}")
    return torch.stack(photos).mean(dim=0)


def write_averages(folders: Sequence[Path], out: Path) -> list[Path]:
    """Average every photo that all folders hold, and write the means as PNG.

    A mean is written to `out/KEY.png`, KEY being the file's path below its folder with its own
    suffix kept, which is how an evaluation finds the protected file of a photo. The colour profile
    is the first folder's; other metadata are dropped.

    Returns:
        The files written, sorted.

    Raises:
        ValueError: fewer than two folders, nothing in common, or sizes that differ.
    """
    found = [picture_files(folder) for folder in folders]
    common = sorted(set(found[0]).intersection(*found[1:])) if len(found) > 1 else []
    if not common:
        raise ValueError(f"expected at least two folders with photos in common, got {len(folders)}")
    written = []
    for key in common:
        paths = [files[key] for files in found]
        pixels = (average_cloaks(paths) * 255.0).round().byte().permute(1, 2, 0).numpy()
        target = out / f"{key}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(paths[0]) as first:
            profile = first.info.get("icc_profile")
        Image.fromarray(pixels).save(target, icc_profile=profile)
        written.append(target)
    return written


def _upright(path: Path) -> Tensor:
    with Image.open(path) as image:
        pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0


def main(words: Sequence[str] | None = None) -> None:
    """Average folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders of cloaks, one per seed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the means")
    arguments = parser.parse_args(words)
    written = write_averages(arguments.folders, arguments.out)
    print(f"{len(written)} means of {len(arguments.folders)} cloaks -> {arguments.out}")


if __name__ == "__main__":
    main()
