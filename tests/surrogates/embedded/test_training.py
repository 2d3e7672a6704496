import pathlib

import lightning
import pytest
import torch

from anti_i2v_lit.surrogates.embedded.denoiser import DenoiserShape
from anti_i2v_lit.surrogates.embedded.fitting import FitOptions, fit
from anti_i2v_lit.surrogates.embedded.frame_autoencoder import AutoencoderShape
from anti_i2v_lit.surrogates.embedded.lit_autoencoder import AutoencoderTraining, LitAutoencoder
from anti_i2v_lit.surrogates.embedded.lit_denoiser import DenoiserTraining, LitDenoiser
from anti_i2v_lit.surrogates.embedded.perceptual import PerceptualDistance
from anti_i2v_lit.surrogates.embedded.schedule import Schedule

SCHEDULE = Schedule(max_steps=4, warmup_steps=1)


def autoencoder() -> LitAutoencoder:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    return LitAutoencoder(
        shape=AutoencoderShape(
            block_channels=(8, 8, 8), latent_channels=4, norm_groups=4, sample_size=64
        ),
        training=AutoencoderTraining(schedule=SCHEDULE, batch_size=2),
        photos=torch.randint(0, 256, (3, 3, 80, 80), generator=generator, dtype=torch.uint8),
        frames=torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8),
        perceptual=PerceptualDistance(None),
    )


def denoiser() -> LitDenoiser:
    generator = torch.Generator().manual_seed(0)
    shape = DenoiserShape(
        heads=3, head_dim=16, layers=2, time_dim=8, latent_channels=4, latent_size=8, frames=3
    )
    return LitDenoiser(
        shape=shape,
        training=DenoiserTraining(schedule=SCHEDULE, batch_size=2),
        latents=torch.randn(5, 3, 4, 8, 8, generator=generator),
        captions=["", "the person nods", "", "the camera pans left", "the person nods"],
        deviations=torch.tensor([4.0, 2.0, 1.0, 0.5]),
    )


@pytest.mark.parametrize("make", [autoencoder, denoiser])
def test_two_steps_and_two_more_give_the_weights_of_four(
    make: type[lightning.LightningModule], tmp_path: pathlib.Path
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


def test_denoiser_error_has_a_value_for_every_latent_element() -> None:
    module = denoiser()
    clean, text, noise, timesteps = module.draw(0)
    assert clean.shape == (2, 3, 4, 8, 8)
    assert text.shape == (2, 16, 64)
    assert (timesteps.diff() > 0).all()
    assert module.error(clean, text, noise, timesteps).shape == clean.shape
    again = module.draw(0)
    assert torch.equal(again[2], noise)
    assert not torch.equal(module.draw(1)[2], noise)
