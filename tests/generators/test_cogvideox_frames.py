"""The packaged autoencoder in its cheaper form makes the pictures that diffusers makes."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from anti_i2v_lit.generators.cogvideox_frames import FrameConv, LatentNorm, simplify
from anti_i2v_lit.surrogates.embedded.frame_autoencoder import (
    AutoencoderShape,
    FrameAutoencoder,
    to_cogvideox,
)


def pictures_only() -> AutoencoderKLCogVideoX:
    """A miniature of the packaged class, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = AutoencoderShape(
            block_channels=(8, 16), norm_groups=4, latent_channels=4, sample_size=32
        )
        return to_cogvideox(FrameAutoencoder(shape)).requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
def test_clips_are_decoded_and_encoded_as_by_diffusers(frames: int) -> None:
    theirs, ours = pictures_only(), pictures_only()
    assert simplify(ours)
    source = torch.Generator().manual_seed(frames)
    latents = torch.randn(2, 4, frames, 8, 6, generator=source)
    clips = torch.rand(2, 3, frames, 16, 12, generator=source) * 2 - 1
    torch.testing.assert_close(
        ours.decode(latents).sample, theirs.decode(latents).sample, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        ours.encode(clips).latent_dist.parameters,
        theirs.encode(clips).latent_dist.parameters,
        rtol=0,
        atol=1e-5,
    )
    kinds = {type(module) for module in ours.modules()}
    assert {FrameConv, LatentNorm} <= kinds


def test_one_weight_for_an_earlier_frame_leaves_everything_as_it_was() -> None:
    autoencoder = pictures_only()
    autoencoder.decoder.conv_in.conv.weight[0, 0, 0, 0, 0] = 1e-3
    assert not simplify(autoencoder)
    assert not any(isinstance(m, FrameConv | LatentNorm) for m in autoencoder.modules())
