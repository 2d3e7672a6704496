"""Round trips through autoencoders against the code that their models run."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from anti_i2v_lit.purifications.autoencoders import load_reconstructor
from anti_i2v_lit.purifications.vae import VaeRoundTrip
from anti_i2v_lit.purifications.working_size import at_working_size, shrink
from anti_i2v_lit.surrogates.dynamicrafter.loading import load_parts


@pytest.fixture(scope="module")
def photo() -> Tensor:
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255.0
    return shrink(image[..., :320, 100:420], 128)


def test_the_packaged_first_stage_is_that_of_its_model(photo: Tensor) -> None:
    """Against the reference layout's own code, which knows nothing of diffusers."""
    stage = load_parts("embedded", 0, torch.float32).first_stage
    latents = stage.moments(2.0 * photo - 1.0).chunk(2, dim=1)[0]
    expected = (0.5 * (stage.decode(latents) + 1.0)).clamp(0.0, 1.0)
    found = load_reconstructor("unet_128").reconstruct(photo)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["mmdit_128", "unet_128"])
def test_packaged_autoencoders_keep_the_picture(photo: Tensor, name: str) -> None:
    found = load_reconstructor(name).reconstruct(photo)
    assert peak_signal_noise_ratio(photo.numpy(), found.numpy(), data_range=1.0) > 20


def test_folders_of_diffusers_autoencoders_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kl = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()
    kl.save_pretrained(tmp_path / "pipeline" / "vae", variant="fp16")
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()
    tiny.save_pretrained(tmp_path / "tiny")
    images = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        signed = 2.0 * images - 1.0
        by_kl = kl.decode(kl.encode(signed).latent_dist.mean).sample
        by_tiny = tiny.decode(tiny.encode(signed).latents).sample
    for folder, expected in ((tmp_path / "pipeline", by_kl), (tmp_path / "tiny", by_tiny)):
        loaded = load_reconstructor(str(folder))
        assert loaded.unit_px == 2
        wanted = (0.5 * (expected + 1.0)).clamp(0.0, 1.0)
        torch.testing.assert_close(loaded.reconstruct(images), wanted, atol=1e-5, rtol=0)


def test_a_published_tiny_autoencoder_keeps_what_it_is_known_to_keep(real_data: Path) -> None:
    """31.19 dB on the astronaut was measured with other code before this was written."""
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255.0
    found = load_reconstructor(str(real_data / "models")).reconstruct(image)
    assert peak_signal_noise_ratio(image.numpy(), found.numpy(), data_range=1.0) == pytest.approx(
        31.19, abs=0.05
    )


def test_broken_tiny_autoencoders_are_refused(tmp_path: Path) -> None:
    for half in ("encoder", "decoder"):
        torch.save({"0.weight": torch.zeros(3)}, tmp_path / f"taesd_{half}.pth")
    with pytest.raises(ValueError, match="not a tiny autoencoder"):
        load_reconstructor(str(tmp_path))


class Negative:
    """An "autoencoder" that is easy to foresee."""

    unit_px = 8

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def reconstruct(self, photos: Tensor) -> Tensor:
        self.sizes.append(tuple(photos.shape[-2:]))
        return 1.0 - photos


def test_severity_is_the_share_of_the_way_and_the_size_is_the_models() -> None:
    negative = Negative()
    purification = VaeRoundTrip(VaeRoundTrip.Config(work_px=30), negative)
    photo = torch.rand(1, 3, 30, 45, generator=torch.Generator().manual_seed(0))
    found = purification.purify(photo, 0.25, torch.Generator())
    torch.testing.assert_close(found, 0.75 * photo + 0.25 * (1.0 - photo))
    purification.purify(torch.rand(1, 3, 60, 90), 0.25, torch.Generator())
    assert negative.sizes == [(32, 48), (32, 48)]


def test_what_the_working_size_cannot_hold_is_lost() -> None:
    fine = torch.full((1, 3, 64, 64), 0.5)
    fine[..., ::2] = 0.7
    found = at_working_size(fine, 16, 1, lambda small: small)
    torch.testing.assert_close(found, torch.full_like(fine, 0.6), atol=0.01, rtol=0)
    assert torch.equal(at_working_size(fine, 0, 1, lambda small: small), fine)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'unet_12'. Did you mean 'unet_128'"):
        load_reconstructor("unet_12")
    with pytest.raises(ValueError, match="config.json is missing"):
        load_reconstructor(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}', encoding="utf-8")
    with pytest.raises(ValueError, match="unknown kind of autoencoder"):
        load_reconstructor(str(tmp_path))
