"""The two-dimensional path of the photo encoder equals diffusers' three-dimensional one."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d

from anti_i2v_lit.bench.meter import Meter
from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.surrogates import cogvideox_encoder
from anti_i2v_lit.surrogates.cogvideox_encoder import PhotoEncoder, PhotoResnet


@pytest.fixture(scope="module", params=[1, 4])
def vae(request: pytest.FixtureRequest) -> AutoencoderKLCogVideoX:
    return tiny_cogvideox(temporal_ratio=request.param).vae.requires_grad_(False)


@pytest.fixture
def photos() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def encoder_of(vae: AutoencoderKLCogVideoX, checkpointing: bool = False) -> PhotoEncoder:
    return PhotoEncoder(copy.deepcopy(vae), checkpointing)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_photo_path_equals_the_plain_one_with_gradients(
    vae: AutoencoderKLCogVideoX, photos: torch.Tensor, checkpointing: bool
) -> None:
    plain, fast = photos.clone().requires_grad_(), photos.clone().requires_grad_()
    expected = vae.encode(plain[:, :, None]).latent_dist.mode()[:, :, 0]
    found, _ = encoder_of(vae, checkpointing)(fast, frozenset())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (wanted,) = torch.autograd.grad((expected * weights).sum(), plain)
    (got,) = torch.autograd.grad((found * weights).sum(), fast)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("piece_bytes", [1, 3 * 32 * 32 * 8 * 4, 2**30])
@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 8, 9, 17, 20])
def test_clips_are_encoded_as_by_diffusers(
    vae: AutoencoderKLCogVideoX,
    num_frames: int,
    piece_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One frame at a time, some, or all of them together."""
    monkeypatch.setattr(cogvideox_encoder, "PIECE_BYTES", piece_bytes)
    clip = torch.rand(2, 3, num_frames, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = vae.encode(clip).latent_dist.mode()
        found = encoder_of(vae).encode_clips(clip)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [4, 17])
def test_clips_have_the_gradient_of_diffusers(vae: AutoencoderKLCogVideoX, num_frames: int) -> None:
    clip = torch.rand(1, 3, num_frames, 16, 16, generator=torch.Generator().manual_seed(4))
    plain, ours = clip.clone().requires_grad_(), clip.clone().requires_grad_()
    expected = vae.encode(plain).latent_dist.mode()
    found = encoder_of(vae, checkpointing=True).encode_clips(ours)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (wanted,) = torch.autograd.grad((expected * weights).sum(), plain)
    (got,) = torch.autograd.grad((found * weights).sum(), ours)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_pieces_need_less_memory(
    vae: AutoencoderKLCogVideoX, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What diffusers needs beside the clip, and what one frame at a time needs."""
    monkeypatch.setattr(cogvideox_encoder, "PIECE_BYTES", 1)
    encoder, clip = encoder_of(vae), torch.rand(1, 3, 4, 64, 64)
    with torch.no_grad(), Meter() as plain:
        vae.encode(clip)
    with torch.no_grad(), Meter() as ours:
        encoder.encode_clips(clip)
    assert ours.peak < 0.75 * plain.peak
    assert ours.largest_convolution < 0.6 * plain.largest_convolution


def test_taps_are_the_outputs_of_diffusers_modules(
    vae: AutoencoderKLCogVideoX, photos: torch.Tensor
) -> None:
    encoder = encoder_of(vae)
    seen: dict[str, torch.Tensor] = {}
    sources = {"encoder.conv_in": vae.encoder.conv_in, "encoder.mid": vae.encoder.mid_block}
    sources |= {f"encoder.down.{i}": b for i, b in enumerate(vae.encoder.down_blocks)}
    handles = [
        module.register_forward_hook(
            lambda _m, _i, output, name=name: seen.__setitem__(name, output[0][:, :, 0])
        )
        for name, module in sources.items()
    ]
    vae.encode(photos[:, :, None])
    for handle in handles:
        handle.remove()
    _, features = encoder(photos, frozenset(encoder.tap_names))
    assert set(features) == set(seen)
    for name, value in features.items():
        torch.testing.assert_close(value, seen[name], atol=1e-5, rtol=1e-5)


def test_diffusers_class_is_left_alone(vae: AutoencoderKLCogVideoX) -> None:
    before = CogVideoXCausalConv3d.forward
    encoder = encoder_of(vae)
    assert CogVideoXCausalConv3d.forward is before
    assert isinstance(vae.encoder.conv_in, CogVideoXCausalConv3d)
    assert not any("decoder" in name for name, _ in encoder.named_modules())


def test_checkpointing_recomputes_every_block_in_eval_mode(
    vae: AutoencoderKLCogVideoX, photos: torch.Tensor
) -> None:
    def runs(checkpointing: bool) -> int:
        encoder = encoder_of(vae, checkpointing).requires_grad_(False).eval()
        seen: list[str] = []
        blocks = [m for m in encoder.modules() if isinstance(m, PhotoResnet)]
        for block in blocks:
            block.conv2.register_forward_pre_hook(lambda *_: seen.append("run"))
        encoder(photos.clone().requires_grad_(), frozenset())[0].sum().backward()
        return len(seen)

    assert runs(checkpointing=True) == 2 * runs(checkpointing=False) > 0


def test_foreign_convolutions_are_refused() -> None:
    vae = tiny_cogvideox().vae
    vae.encoder.conv_in = CogVideoXCausalConv3d(3, 8, kernel_size=3, pad_mode="replicate")
    with pytest.raises(ValueError, match="not a CogVideoX autoencoder"):
        PhotoEncoder(vae, False)
