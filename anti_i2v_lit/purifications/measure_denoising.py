"""How well a diffusion model takes noise away, beside filters that know no photos.

    python -m anti_i2v_lit.purifications.measure_denoising --photos DIR [--model FOLDER]

Prints the table of the packaged model's card. The filters get the best of several strengths at
every noise level, chosen on the very patches that are measured, which favours them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_bilateral
from torch import Tensor

from anti_i2v_lit.purifications.diffusion import DiffusionModel, load_diffusion
from anti_i2v_lit.purifications.training_photos import load_pixels, picture_files, random_patch
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX
from anti_i2v_lit.seeds import generator_for

_TIMESTEPS = (9, 24, 49, 99, 149)
_BLURS_PX = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7)
_COLOUR_SPREADS = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6)
_BILATERAL_RADIUS_PX = 1.5
_COLUMNS = ("noisy", "Gaussian", "bilateral", "model")


def measure(model: DiffusionModel, clean: Tensor, timestep: int) -> dict[str, float]:
    """Mean PSNR in dB of noisy patches, of both filters, and of the model's one-step estimate.

    Args:
        model: the noise predictor.
        clean: [N, 3, side, side] in [0, 1].
        timestep: of the noise, from 0.
    """
    signal, spread = model.scales(timestep)
    images = 2.0 * clean - 1.0
    noise = torch.randn(clean.shape, generator=generator_for(0, "", timestep, "denoising"))
    noisy = signal * images + spread * noise
    estimate = (noisy - spread * model.noise(noisy, timestep)) / signal
    visible = (0.5 * (noisy / signal + 1.0)).clamp(0.0, 1.0)
    return {
        "noisy": psnr(visible, clean),
        "Gaussian": max(psnr(_filtered(visible, _blur(s)), clean) for s in _BLURS_PX),
        "bilateral": max(psnr(_filtered(visible, _bilateral(s)), clean) for s in _COLOUR_SPREADS),
        "model": psnr((0.5 * (estimate + 1.0)).clamp(0.0, 1.0), clean),
    }


def psnr(found: Tensor, clean: Tensor) -> float:
    """Mean over patches of 10 log10(1 / mean squared error), dB."""
    errors = (found - clean).square().mean(dim=(1, 2, 3))
    return sum(-10.0 * math.log10(error) for error in errors.tolist()) / len(errors)


def held_out_patches(folder: Path, side_px: int) -> Tensor:
    """One patch [3, side_px, side_px] of every photo, taken at the packaged models' size."""
    patches = []
    for key, path in picture_files(folder).items():
        pixels = load_pixels(path)
        scale = min(1.0, DEFAULT_WORK_PX / min(pixels.shape[-2:]))
        generator = generator_for(0, key, 0, "patch")
        patches.append(random_patch([pixels], side_px, scale, generator, largest_scale=scale))
    return torch.cat(patches)


def _filtered(photos: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    pixels = photos.permute(0, 2, 3, 1).numpy()
    changed = np.stack([change(image) for image in pixels]).astype(np.float32)
    return torch.from_numpy(changed).permute(0, 3, 1, 2)


def _blur(sigma_px: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: gaussian_filter(image, (sigma_px, sigma_px, 0.0), mode="nearest")


def _bilateral(spread: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: denoise_bilateral(
        image, sigma_color=spread, sigma_spatial=_BILATERAL_RADIUS_PX, channel_axis=-1, mode="edge"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="photos never trained on")
    parser.add_argument("--model", default="embedded", help="'embedded' or a diffusers folder")
    arguments = parser.parse_args(words)
    model = load_diffusion(arguments.model)
    clean = held_out_patches(arguments.photos, model.side_px)
    print(f"| steps of noise | {' | '.join(_COLUMNS)} |")
    print(f"| --- {'| --- ' * len(_COLUMNS)}|")
    for timestep in _TIMESTEPS:
        found = measure(model, clean, timestep)
        cells = " | ".join(f"{found[column]:.2f}" for column in _COLUMNS)
        print(f"| {timestep + 1} | {cells} |")
    print(f"\nPSNR in dB, means over {len(clean)} patches of {model.side_px} px.")


if __name__ == "__main__":
    main()
