"""Train the packaged patch diffusion model.

    python -m anti_i2v_lit.purifications.train_patch_diffusion --photos DIR --work DIR --out DIR

The same command takes an interrupted training up again. The result is a diffusers folder (a
`DDPMPipeline`: U-Net in half precision and scheduler). `measure_denoising` makes the table of its
model card from other photos.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from anti_i2v_lit.purifications.fitting import TimedTraining, fit
from anti_i2v_lit.purifications.training_photos import load_pixels, picture_files, random_patch

SIDE_PX = 64
_CHANNELS = (16, 32, 64, 128)
_BATCH = 20
_LOW_T, _LOW_SHARE = 300, 0.9  # purification adds little noise, so most of the training does too
_SMALLEST_SCALE = 0.4


def new_network() -> UNet2DModel:
    """The fresh U-Net: four levels, convolutions only, 2.4 million parameters."""
    return UNet2DModel(
        sample_size=SIDE_PX,
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(_CHANNELS),
        up_block_types=("UpBlock2D",) * len(_CHANNELS),
        norm_num_groups=8,
        add_attention=False,
    )


def new_scheduler() -> DDPMScheduler:
    """The linear schedule of Ho et al. 2020: 1000 steps, betas from 1e-4 to 0.02."""
    return DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)


class PatchDiffusion(TimedTraining):
    """Noise prediction on patches, Ho et al. 2020, "Denoising Diffusion ...", equation 14.

    Args:
        pictures: [3, H, W] uint8 each.
        minutes: training time over all runs.
        seed: of everything drawn.
    """

    def __init__(self, pictures: Sequence[Tensor], *, minutes: float, seed: int = 0) -> None:
        torch.manual_seed(seed)  # of the network's first weights
        super().__init__(
            new_network(), minutes=minutes, learning_rate=8e-4, average_decay=0.998, seed=seed
        )
        self.pictures = list(pictures)
        self.scheduler = new_scheduler()

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared error of the predicted noise."""
        chosen = torch.randint(len(self.pictures), (_BATCH,), generator=generator).tolist()
        patches = [
            random_patch([self.pictures[i]], SIDE_PX, _SMALLEST_SCALE, generator) for i in chosen
        ]
        clean = 2.0 * torch.cat(patches).to(self.device) - 1.0
        draws = torch.rand(2, _BATCH, generator=generator)
        reach = torch.where(draws[0] < _LOW_SHARE, _LOW_T, len(self.scheduler.betas))
        steps = (draws[1] * reach).long().to(self.device)
        noise = torch.randn(clean.shape, generator=generator).to(self.device)
        noisy = self.scheduler.add_noise(clean, noise, steps)  # type: ignore[arg-type]
        found = self.network(noisy, steps).sample
        return (found.float() - noise).square().mean()


def main(words: Sequence[str] | None = None) -> None:
    """Train, then write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to learn from")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="diffusers folder to write")
    parser.add_argument("--minutes", type=float, default=25.0, help="time over all runs")
    arguments = parser.parse_args(words)
    pictures = [load_pixels(path) for path in picture_files(arguments.photos).values()]
    module = PatchDiffusion(pictures, minutes=arguments.minutes)
    fit(module, arguments.work)
    network = module.result().half()
    assert isinstance(network, UNet2DModel)
    scheduler: Any = new_scheduler()
    pipeline = DDPMPipeline(unet=network, scheduler=scheduler)
    pipeline.save_pretrained(arguments.out, variant="fp16")
    print(f"{module.global_step} steps, {module.seconds_spent / 60:.1f} min -> {arguments.out}")


if __name__ == "__main__":
    main()
