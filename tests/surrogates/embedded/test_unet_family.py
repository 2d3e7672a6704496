import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from torch.nn import functional

from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage
from anti_i2v_lit.surrogates.dynamicrafter.loading import load_parts
from anti_i2v_lit.surrogates.embedded.family import ClipCondition
from anti_i2v_lit.surrogates.embedded.ldm_autoencoder import LdmAutoencoder, LdmShape
from anti_i2v_lit.surrogates.embedded.pass_through import pass_through_init
from anti_i2v_lit.surrogates.embedded.unet_denoiser import Withholding
from anti_i2v_lit.surrogates.embedded.unet_family import UNetFamily, UNetShape
from tests.surrogates.embedded.small import SMALL_UNET


def picture(size: int = 128) -> torch.Tensor:
    whole = torch.from_numpy(np.array(astronaut())).permute(2, 0, 1)[None].float() / 127.5 - 1
    return functional.interpolate(whole, size=(size, size), mode="area")


@torch.no_grad()
def test_a_fresh_first_stage_passes_a_coarse_picture_through() -> None:
    torch.manual_seed(0)
    shape, image = LdmShape(), picture()
    started = LdmAutoencoder(shape)
    mean, _ = started.encode(image)
    decoded = started.decode(mean)
    usual = FirstStage(**shape.settings())
    plain = usual.decode(usual.moments(image).chunk(2, dim=1)[0])

    def likeness(other: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([other.flatten(), image.flatten()]))[0, 1])

    assert likeness(decoded) > 0.85
    assert abs(likeness(plain)) < 0.5
    # The scales written beside the bands are those of real pictures.
    assert 0.4 < float(mean.std(dim=(0, 2, 3)).median()) < 2.5


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="four levels"):
        pass_through_init(FirstStage(ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=16))
    with pytest.raises(ValueError, match="whole patches"):
        UNetShape(image_size=65)
    with pytest.raises(ValueError, match="multiple"):
        LdmShape(channels=20)
    with pytest.raises(ValueError, match="two channels a group"):
        dataclasses.replace(SMALL_UNET, unet_shape=UNetShape(channels=32, context=16)).denoiser(0)
    with pytest.raises(ValueError, match="shares"):
        Withholding(latent=1.5)


def condition(clips: int) -> ClipCondition:
    return ClipCondition(
        first=torch.ones(clips, 16, 8, 8),
        text=torch.full((clips, 77, 16), 9.0),
        picture=torch.full((clips, 5, 32), 9.0),
    )


@pytest.mark.parametrize("part", ["latent", "picture", "text"])
def test_each_part_of_the_condition_is_withheld_from_its_share(part: str) -> None:
    torch.manual_seed(0)
    shares = {"latent": 0.0, "picture": 0.0, "text": 0.0, part: 0.25}
    family = dataclasses.replace(SMALL_UNET, withholding=Withholding(**shares))
    encoder = family.picture_encoder()
    told = family.denoising(encoder).withhold(condition(400), torch.Generator().manual_seed(0))
    changed = {
        "latent": (told.first != 1.0).flatten(1).any(1),
        "picture": (told.picture != 9.0).flatten(1).any(1),
        "text": (told.text != 9.0).flatten(1).any(1),
    }
    for name, rows in changed.items():
        assert 70 < rows.sum() < 130 if name == part else not rows.any()
    if part == "latent":
        assert not told.first[changed["latent"]].any()
    if part == "picture":
        grey = encoder.tokens(torch.zeros(1, 3, 64, 64))[0]
        torch.testing.assert_close(told.picture[changed["picture"]][0], grey)


@torch.no_grad()
def test_a_fresh_denoiser_predicts_the_v_of_a_still_clip() -> None:
    torch.manual_seed(0)
    family = SMALL_UNET
    denoising = family.denoising(family.picture_encoder())
    photo, noise = torch.randn(4, 16, 8, 8), torch.randn(4, 3, 16, 8, 8)
    clean = photo[:, None].expand_as(noise)
    # Where the constant in the anchor is the signal it stands for.
    index = int((denoising.alphas.sqrt() - 0.5).abs().argmin())
    signal = denoising.alphas[index].sqrt()
    spread = (1.0 - denoising.alphas[index]).sqrt()
    told = ClipCondition(
        first=photo, text=denoising.embed_prompts([""] * 4), picture=torch.randn(4, 5, 32)
    )
    predicted = denoising.predict(
        family.denoiser(0),
        signal * clean + spread * noise,
        torch.full((4,), index),
        told,
    )
    target = signal * noise - spread * clean
    error = (predicted - target).square().mean()
    assert float(error) < 0.2 * float(target.square().mean()), "transformers start a little open"


@torch.no_grad()
def test_an_exported_model_loads_and_predicts_what_the_trained_parts_do(
    tmp_path: pathlib.Path,
) -> None:
    torch.manual_seed(0)
    family = SMALL_UNET
    autoencoder, encoder, denoiser = (
        family.autoencoder(),
        family.picture_encoder(),
        family.denoiser(1).eval(),
    )
    size = family.export(autoencoder, encoder, denoiser, tmp_path / "model")
    assert size == sum(p.stat().st_size for p in (tmp_path / "model").rglob("*") if p.is_file())
    parts = load_parts(str(tmp_path / "model"), 0, torch.float32)
    image, noisy = picture(64), torch.randn(1, 3, 16, 8, 8)
    first, _ = autoencoder.encode(image)
    moments = parts.first_stage.moments(image)
    torch.testing.assert_close(moments.chunk(2, dim=1)[0], first, atol=2e-2, rtol=2e-2)
    tokens = encoder.tokens(image)
    torch.testing.assert_close(parts.embedder(image), tokens, atol=2e-2, rtol=2e-2)
    denoising = family.denoising(encoder)
    text = denoising.embed_prompts(["the person nods"])
    words = parts.prompts.embed(["the person nods"], torch.device("cpu"))
    torch.testing.assert_close(words, text, atol=1e-2, rtol=1e-2)
    times = torch.tensor([500])
    expected = denoising.predict(
        denoiser, noisy, times, ClipCondition(first=first, text=text, picture=tokens)
    )
    joined = torch.cat([noisy, first[:, None].expand_as(noisy)], dim=2).transpose(1, 2)
    context = torch.cat([words, parts.resampler(parts.embedder(image))], dim=1)
    found = parts.unet.eval()(joined, times, context).transpose(1, 2)
    assert float((found - expected).std() / expected.std()) < 0.02


def test_the_tokenizer_beside_the_model_names_a_class_that_every_release_knows(
    tmp_path: pathlib.Path,
) -> None:
    family = SMALL_UNET
    family.export(
        family.autoencoder(), family.picture_encoder(), family.denoiser(0), tmp_path / "model"
    )
    settings = tmp_path / "model" / "tokenizer" / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    assert values["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert values["model_max_length"] == 77


def test_the_default_model_is_small_enough_to_ship() -> None:
    family = UNetFamily()
    parts = (
        family.autoencoder(),
        family.picture_encoder(),
        family.denoiser(0),
        family.text_embedder(),
    )
    numbers = sum(p.numel() for part in parts for p in part.parameters())
    assert 2 * numbers < 23_500_000
