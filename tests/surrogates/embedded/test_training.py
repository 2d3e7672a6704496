import dataclasses
import pathlib
from collections.abc import Callable

import lightning
import pytest
import torch

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.clips import EncodedClips
from anti_i2v_lit.surrogates.embedded.denoiser import DenoiserShape
from anti_i2v_lit.surrogates.embedded.family import Family
from anti_i2v_lit.surrogates.embedded.fitting import FitOptions, fit
from anti_i2v_lit.surrogates.embedded.frame_autoencoder import AutoencoderShape, FrameAutoencoder
from anti_i2v_lit.surrogates.embedded.ldm_autoencoder import LdmAutoencoder, LdmShape
from anti_i2v_lit.surrogates.embedded.lit_autoencoder import AutoencoderTraining, LitAutoencoder
from anti_i2v_lit.surrogates.embedded.lit_denoiser import DenoiserTraining, LitDenoiser
from anti_i2v_lit.surrogates.embedded.lit_picture_encoder import (
    LitPictureEncoder,
    PictureEncoderTraining,
)
from anti_i2v_lit.surrogates.embedded.mmdit_family import TransformerFamily
from anti_i2v_lit.surrogates.embedded.perceptual import PerceptualDistance
from anti_i2v_lit.surrogates.embedded.schedule import Schedule
from anti_i2v_lit.surrogates.embedded.stages import take_fitting
from anti_i2v_lit.surrogates.embedded.unet_family import UNetFamily
from tests.surrogates.embedded.small import SMALL_UNET

SCHEDULE = Schedule(max_steps=4, warmup_steps=1)
SMALL_TRANSFORMER = TransformerFamily(
    denoiser_shape=DenoiserShape(
        heads=3, head_dim=16, layers=2, time_dim=8, latent_channels=4, latent_size=8, frames=3
    )
)


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def autoencoder(model: PictureAutoencoder) -> LitAutoencoder:
    return LitAutoencoder(
        autoencoder=model,
        training=AutoencoderTraining(schedule=SCHEDULE, batch_size=2),
        photos=noise(3, 3, 80, 80),
        frames=noise(2, 3, 64, 64),
        perceptual=PerceptualDistance(None),
    )


def frame_autoencoder() -> LitAutoencoder:
    torch.manual_seed(0)
    shape = AutoencoderShape(
        block_channels=(8, 8, 8), latent_channels=4, norm_groups=4, sample_size=64
    )
    return autoencoder(FrameAutoencoder(shape))


def first_stage() -> LitAutoencoder:
    torch.manual_seed(0)
    return autoencoder(LdmAutoencoder(LdmShape(sample_size=64)))


def denoiser(
    family: Family, channels: int, tokens: tuple[int, int], portraits_every: int = 0
) -> LitDenoiser:
    generator = torch.Generator().manual_seed(0)
    captions = ("", "the person nods", "", "the camera pans left", "the person nods")
    return LitDenoiser(
        model=family.denoiser(0),
        denoising=family.denoising(family.picture_encoder()),
        training=DenoiserTraining(schedule=SCHEDULE, batch_size=2, portraits_every=portraits_every),
        clips=EncodedClips(
            latents=torch.randn(5, 3, channels, 8, 8, generator=generator),
            captions=captions,
            tokens=torch.randn(5, *tokens, generator=generator),
        ),
        deviations=torch.linspace(4.0, 0.5, channels),
    )


def transformer() -> LitDenoiser:
    return denoiser(SMALL_TRANSFORMER, 4, (0, 0))


def unet() -> LitDenoiser:
    torch.manual_seed(0)
    return denoiser(SMALL_UNET, 16, (5, 32), portraits_every=3)


def image_encoder() -> LitPictureEncoder:
    torch.manual_seed(0)
    return LitPictureEncoder(
        model=SMALL_UNET.picture_encoder(),
        training=PictureEncoderTraining(schedule=SCHEDULE, people=3),
        photos=noise(5, 3, 40, 40),
        size=32,
    )


MODULES = [frame_autoencoder, first_stage, image_encoder, transformer, unet]


@pytest.mark.parametrize("make", MODULES)
def test_two_steps_and_two_more_give_the_weights_of_four(
    make: Callable[[], lightning.LightningModule], tmp_path: pathlib.Path
) -> None:
    def options(name: str) -> FitOptions:
        return FitOptions(folder=tmp_path / name, accelerator="cpu", precision="32-true")

    whole = make()
    fit(whole, schedule=SCHEDULE, options=options("whole"))
    fit(make(), schedule=SCHEDULE, options=options("parts"), stop_after=2)
    resumed = make()
    fit(resumed, schedule=SCHEDULE, options=options("parts"))
    assert whole.global_step == resumed.global_step == 4
    other = resumed.state_dict()
    started = make().state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(other[name], value, msg=name)
    assert any(not torch.equal(value, started[name]) for name, value in other.items())


def test_schedule_ends_at_zero_by_steps_and_by_time() -> None:
    schedule = Schedule(max_steps=100, max_minutes=1.0, peak_rate=1.0, warmup_steps=10)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.rate(20, 0.0) > 0.8
    assert schedule.rate(20, 59.9) < 0.01
    assert schedule.progress(100, 0.0) == schedule.progress(3, 61.0) == 1.0


@pytest.mark.parametrize("bad", [{"max_steps": 0}, {"max_steps": 1, "max_minutes": 0.0}])
def test_endless_schedules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="arrived"):
        Schedule(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [transformer, unet])
def test_denoiser_error_has_a_value_for_every_latent_element(
    make: Callable[[], LitDenoiser],
) -> None:
    module = make()
    batch = module.draw(0)
    assert batch.clean.shape[:2] == (2, 3)
    assert (batch.timesteps.diff() > 0).all()
    assert module.error(batch).shape == batch.clean.shape
    again = module.draw(0)
    assert torch.equal(again.noise, batch.noise)
    assert torch.equal(again.condition.first, batch.condition.first)
    assert not torch.equal(module.draw(1).noise, batch.noise)


def test_single_frames_are_described_by_their_image_tokens_alone() -> None:
    module = unet()
    assert [module.is_portrait(step) for step in range(6)] == [False, False, True] * 2
    assert not any(transformer().is_portrait(step) for step in range(6))
    batch = module.draw_portraits(2)
    assert batch.clean.shape == (6, 1, 16, 8, 8), "as many frames as two clips of three have"
    assert not batch.condition.first.any()
    assert int(batch.timesteps.min()) >= 300
    latents, tokens = module._clips.latents, module._clips.tokens
    for clean, told in zip(batch.clean, batch.condition.picture, strict=True):
        place = (latents == clean).flatten(2).all(dim=2).nonzero()
        assert len(place) == 1
        assert torch.equal(tokens[place[0, 0]], told), "the tokens of the frame's own clip"


def test_a_denoiser_with_more_blocks_goes_on_where_an_earlier_one_was() -> None:
    shape = dataclasses.replace(SMALL_UNET.unet_shape, attended=(2,))
    earlier = dataclasses.replace(SMALL_UNET, unet_shape=shape).denoiser(1)
    model = SMALL_UNET.denoiser(2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    share = take_fitting(model, earlier.state_dict())
    old, new = earlier.state_dict(), model.state_dict()
    assert set(old) < set(new)
    for name, value in new.items():
        assert torch.equal(value, old.get(name, fresh[name])), name
    assert 0.5 < share < 1.0
    with pytest.raises(ValueError, match="none fits"):
        take_fitting(model, {"elsewhere.weight": torch.zeros(3)})


def test_the_image_encoder_sees_two_views_of_each_person() -> None:
    module = image_encoder()
    views = module.views(0)
    assert views.shape == (6, 3, 32, 32)
    assert not torch.equal(views[0], views[3])
    assert torch.equal(views, module.views(0))


def test_the_image_encoder_learns_to_tell_two_pictures_apart() -> None:
    torch.manual_seed(0)
    schedule = Schedule(max_steps=30, warmup_steps=1, peak_rate=3e-3)
    axis = torch.linspace(0, 255, 40)
    across = axis.expand(3, 40, 40)
    module = LitPictureEncoder(
        model=SMALL_UNET.picture_encoder(),
        training=PictureEncoderTraining(schedule=schedule, people=2, colour=0.0),
        photos=torch.stack([across, across.mT]).to(torch.uint8),
        size=32,
    )
    before = module.training_step(None, 0).item()
    optimiser = torch.optim.AdamW(module.model.parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        module.training_step(None, 0).backward()
        optimiser.step()
    assert module.training_step(None, 0).item() < 0.5 * before


def test_the_two_families_have_parts_of_their_own() -> None:
    assert not list(TransformerFamily().picture_encoder().parameters())
    assert list(UNetFamily().picture_encoder().parameters())
