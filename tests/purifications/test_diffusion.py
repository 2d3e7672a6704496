"""The diffusion loops against diffusers' own scheduler, and against closed forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from anti_i2v_lit.purifications.diffpure import DiffPure
from anti_i2v_lit.purifications.diffusion import (
    DiffusionModel,
    diffuse_and_reverse,
    load_diffusion,
    reverse,
    reverse_timesteps,
)
from anti_i2v_lit.purifications.gridpure import GridPure
from anti_i2v_lit.purifications.measure_denoising import measure
from anti_i2v_lit.purifications.noisy_upscaling import NoisyUpscaling
from anti_i2v_lit.purifications.tiles import over_tiles, tile_starts
from anti_i2v_lit.purifications.training_photos import random_patch


def tiny_network(**settings: object) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        add_attention=False,
        **settings,
    )


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return DiffusionModel(tiny_network(), DDPMScheduler())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int) -> Tensor:
    return 2.0 * torch.rand(*shape, generator=seeded(7)) - 1.0


@pytest.mark.parametrize("steps", [[40, 27, 13, 0], [9, 8, 7], [0]])
def test_the_way_back_is_the_schedulers(model: DiffusionModel, steps: list[int]) -> None:
    noisy = images(2, 3, 16, 16)
    found = reverse(model, noisy, steps, seeded(), model.noise)
    scheduler, generator, expected = DDPMScheduler(), seeded(), noisy
    scheduler.set_timesteps(timesteps=steps)
    for step in steps:
        noise = model.noise(expected, step)
        expected = scheduler.step(noise, step, expected, generator=generator).prev_sample
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_every_form_of_prediction_is_read_as_the_scheduler_reads_it(prediction: str) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction)
    model = DiffusionModel(tiny_network(), scheduler)
    noisy = images(1, 3, 16, 16)
    found = reverse(model, noisy, [30], seeded(), model.noise)
    scheduler.set_timesteps(timesteps=[30])
    raw = model.network(noisy, 30).sample
    expected = scheduler.step(raw, 30, noisy, generator=seeded()).pred_original_sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_noise_is_added_as_the_scheduler_adds_it(model: DiffusionModel) -> None:
    clean, seen = images(2, 3, 16, 16), []

    def watch(noisy: Tensor, timestep: int) -> Tensor:
        seen.append((noisy, timestep))
        return torch.zeros_like(noisy)

    diffuse_and_reverse(
        model, clean, num_noise_steps=50, num_steps=1, generator=seeded(), predict=watch
    )
    noise = torch.randn(clean.shape, generator=seeded())
    expected = DDPMScheduler().add_noise(clean, noise, torch.tensor([49, 49]))
    torch.testing.assert_close(seen[0][0], expected)
    assert [step for _, step in seen] == [49]


def test_reverse_timesteps_go_from_the_top_to_nought() -> None:
    assert reverse_timesteps(100, 4) == [99, 66, 33, 0]
    assert reverse_timesteps(3, 20) == [2, 1, 0]
    assert reverse_timesteps(100, 1) == [99]


def test_noise_strength_is_found_again(model: DiffusionModel) -> None:
    for timestep in (0, 20, 150):
        signal, spread = model.scales(timestep)
        assert model.timestep_of(spread / signal) == timestep


@pytest.mark.parametrize(
    ("length", "starts"), [(16, [0]), (40, [0, 12, 24]), (41, [0, 12, 24, 25])]
)
def test_tiles_reach_the_border(length: int, starts: list[int]) -> None:
    assert tile_starts(length, 16, 12) == starts


def test_tiles_are_averaged_as_torch_folds() -> None:
    photo = images(1, 3, 32, 48)

    def darken(tiles: Tensor) -> Tensor:
        return tiles * torch.linspace(0.0, 1.0, 16)

    found = over_tiles(photo, 16, 8, darken)
    patches = F.unfold(photo, 16, stride=8).view(1, 3, 16, 16, -1)
    changed = (patches * torch.linspace(0.0, 1.0, 16).view(16, 1)).view(1, 3 * 256, -1)
    ones = F.fold(F.unfold(torch.ones_like(photo), 16, stride=8), (32, 48), 16, stride=8)
    torch.testing.assert_close(found, F.fold(changed, (32, 48), 16, stride=8) / ones)


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (37, 50)])
def test_tiles_that_change_nothing_change_nothing(size: tuple[int, int]) -> None:
    photo = images(2, 3, *size)
    torch.testing.assert_close(over_tiles(photo, 16, 12, lambda tiles: tiles), photo)


class Oracle(DiffusionModel):
    """Believes that every photo is one grey."""

    grey = 0.2

    def noise(self, noisy: Tensor, timestep: int) -> Tensor:
        signal, spread = self.scales(timestep)
        return (noisy - signal * self.grey) / spread


@pytest.mark.parametrize(("severity", "iterations"), [(1.0, 4), (0.5, 2), (0.1, 1)])
def test_gridpure_blends_by_gamma_at_every_iteration(severity: float, iterations: int) -> None:
    """With a model that always finds g: x -> (1 - gamma) g + gamma x, so g + gamma^k (x - g)."""
    config = GridPure.Config(num_iterations=4, gamma=0.3, work_px=0)
    purification = GridPure(config, Oracle(tiny_network(), DDPMScheduler()))
    photo = 0.25 + 0.5 * torch.rand(1, 3, 40, 29, generator=seeded())
    found = purification.purify(photo, severity, seeded())
    grey = 0.5 * (Oracle.grey + 1.0)
    expected = grey + 0.3**iterations * (photo - grey)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_diffpure_ends_at_what_the_model_believes() -> None:
    config = DiffPure.Config(num_steps=3, work_px=0)
    purification = DiffPure(config, Oracle(tiny_network(), DDPMScheduler()))
    found = purification.purify(torch.rand(1, 3, 20, 33, generator=seeded()), 0.7, seeded())
    torch.testing.assert_close(found, torch.full_like(found, 0.6), atol=1e-5, rtol=0)


def test_a_folder_of_another_ddpm_is_taken(tmp_path: Path) -> None:
    DDPMPipeline(unet=tiny_network(), scheduler=DDPMScheduler()).save_pretrained(tmp_path)
    loaded = load_diffusion(str(tmp_path))
    assert loaded.side_px == 16 and len(loaded.alphas) == 1000
    photo = torch.rand(1, 3, 20, 20, generator=seeded())
    config = DiffPure.Config(model=str(tmp_path), num_steps=2)
    assert DiffPure(config).purify(photo, 1.0, seeded()).shape == photo.shape


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks unet/config.json.*hf download"):
        load_diffusion(str(tmp_path))
    with pytest.raises(ValueError, match="RGB pixels, got 4 channels in"):
        DiffusionModel(tiny_network(in_channels=4), DDPMScheduler())
    model = DiffusionModel(tiny_network(), DDPMScheduler())
    with pytest.raises(ValueError, match="expected at most 1000"):
        DiffPure(DiffPure.Config(largest_timestep=1001), model)
    for settings in ({"work_px": 8}, {"num_steps": 0}, {"largest_timestep": 0}):
        with pytest.raises(ValueError, match="must be"):
            DiffPure.Config(**settings)
    with pytest.raises(ValueError, match="gamma must be between 0 and 1"):
        GridPure.Config(gamma=1.5)
    with pytest.raises(ValueError, match="x4-upscaler"):
        NoisyUpscaling(NoisyUpscaling.Config(upscaler=str(tmp_path)))


class Repeater:
    """An upscaler that keeps what it was given, four times as large."""

    def __init__(self) -> None:
        self.given: list[tuple[Tensor, float]] = []

    def upscale(self, noisy: Tensor, std: float, generator: torch.Generator) -> Tensor:
        self.given.append((noisy, std))
        return noisy.clamp(0.0, 1.0).repeat_interleave(4, -1).repeat_interleave(4, -2)


def test_the_upscaler_gets_a_smaller_photo_with_noise_of_the_published_strength() -> None:
    upscaler = Repeater()
    purification = NoisyUpscaling(NoisyUpscaling.Config(), upscaler)
    grey = torch.full((1, 3, 320, 256), 0.5)
    after = purification.purify(grey, 1.0, seeded())
    ((noisy, std),) = upscaler.given
    assert noisy.shape == (1, 3, 80, 64) and after.shape == grey.shape
    assert std == pytest.approx(0.1)
    assert (noisy - 0.5).std().item() == pytest.approx(0.1, rel=0.03)


def test_the_packaged_model_takes_away_more_noise_than_filters_do() -> None:
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)
    patches = [
        random_patch([image], 64, 0.25, seeded(seed), largest_scale=0.25) for seed in range(4)
    ]
    for timestep in (24, 99):
        found = measure(load_diffusion("embedded"), torch.cat(patches), timestep)
        assert found["model"] > max(found["Gaussian"], found["bilateral"]) + 1.0
        assert found["Gaussian"] > found["noisy"]
