"""The rectified flow of Open-Sora 1.2: its clock, and its straight line from clip to noise.

x_t = (1 - t) * clip + t * noise with t in [0, 1] (Liu et al. 2022, arXiv 2209.03003); the network
predicts clip - noise. Facts from the published code (hpcaitech/Open-Sora, branch opensora/v1.2,
`opensora/schedulers/rf/rectified_flow.py`), where timesteps are t * 1000.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
_BASE_PIXELS = 512 * 512
# The published code counts the latent frames of whole pieces only.
_PIECE_FRAMES, _PIECE_LATENT_FRAMES = 17, 5


def shift_of(size: tuple[int, int], num_frames: int, num_latent_frames: int) -> float:
    """How much more noise a clip gets than a picture of 512 x 512 pixels.

    The square root of its number of values over that picture's: large and long clips keep their
    structure visible under more noise (Esser et al. 2024, arXiv 2403.03206, section 5.3.2).

    Args:
        size: (H, W) in pixels.
        num_frames: of the clip.
        num_latent_frames: counts for clips below 17 frames, for which the published rule gives
            no noise at all, because it counts whole pieces of 17.
    """
    if num_frames == 1:
        frames = 1
    elif num_frames < _PIECE_FRAMES:
        frames = num_latent_frames
    else:
        frames = num_frames // _PIECE_FRAMES * _PIECE_LATENT_FRAMES
    return (size[0] * size[1] / _BASE_PIXELS) ** 0.5 * frames**0.5


def shifted(timesteps: Tensor, shift: float) -> Tensor:
    """Timesteps in [0, 1000] moved toward noise by a clip's shift, float32.

    Args:
        timesteps: evenly spread ones, in [0, 1000].
        shift: from `shift_of`.
    """
    share = timesteps.double() / NUM_TIMESTEPS
    # Rounded once, at the end: in float32 alone, some shifts would miss 1000 by a hair.
    return (NUM_TIMESTEPS * shift * share / (1 + (shift - 1) * share)).float()


def sampling_timesteps(num_steps: int, shift: float) -> Tensor:
    """Timesteps of the sampler, falling from 1000, with the 0 at which it ends: [steps + 1]."""
    return shifted(torch.linspace(NUM_TIMESTEPS, 0, num_steps + 1, dtype=torch.float64), shift)


def add_noise(clips: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return x_t.

    Args:
        clips: latents [B, ...].
        noise: standard normal, same shape.
        timesteps: [B], in [0, 1000].
    """
    share = (timesteps / NUM_TIMESTEPS).reshape(-1, *[1] * (clips.ndim - 1)).to(clips)
    return (1 - share) * clips + share * noise
