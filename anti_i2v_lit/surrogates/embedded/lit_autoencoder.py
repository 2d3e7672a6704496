"""Stage one: train the framewise autoencoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.perceptual import PerceptualDistance
from anti_i2v_lit.surrogates.embedded.photos import random_crops, seeded
from anti_i2v_lit.surrogates.embedded.schedule import Average, Schedule, Stopwatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """Recipe of the autoencoder."""

    schedule: Schedule  # length and learning rate
    batch_size: int = 8  # pictures a step
    frame_share: float = 0.15  # share of a batch taken from clips instead of photos, [0, 1]
    l1_weight: float = 1.0  # weight of the mean absolute error of pixels in [-1, 1]
    l2_weight: float = 1.0  # weight of the mean squared error of pixels in [-1, 1]
    perceptual_weight: float = 0.2  # weight of LPIPS
    kl_weight: float = 1e-6  # weight of the mean Kullback-Leibler divergence of a latent element
    average_decay: float = 0.998  # decay of the weight average, [0, 1)
    seed: int = 0  # seed of everything drawn in this stage
    log_every: int = 50  # steps between printed lines

    def __post_init__(self) -> None:
        """Refuse impossible recipes."""
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size arrived as {self.batch_size}; expected 2 or more, because latents are "
                "normalised over the batch; raise it."
            )
        if not 0 <= self.frame_share <= 1 or not 0 <= self.average_decay < 1:
            raise ValueError(
                f"frame_share={self.frame_share}, average_decay={self.average_decay} arrived; "
                "expected shares in [0, 1]; correct them."
            )
        weights = (self.l1_weight, self.l2_weight, self.perceptual_weight, self.kl_weight)
        if min(weights) < 0:
            raise ValueError(f"loss weights arrived as {weights}; expected none below 0; raise it.")


class NormalizedAutoencoder(nn.Module):
    """An autoencoder whose latents are centred and scaled per channel by batch statistics.

    The decoder never sees anything but centred latents, so folding the mean into the last encoder
    layer afterwards changes nothing, not even at the zero-padded borders of the decoder.
    """

    def __init__(self, frames: PictureAutoencoder) -> None:
        super().__init__()
        self.frames = frames
        self.statistics = nn.BatchNorm2d(frames.shape.latent_channels, eps=1e-5, affine=False)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised latent mean and log variance, float32, of images in [-1, 1]."""
        mean, logvar = self.frames.encode(image)
        with torch.autocast(image.device.type, enabled=False):
            return self.statistics(mean.float()), logvar.float()

    def decode(self, latent: Tensor) -> Tensor:
        """Images of normalised latents."""
        return self.frames.decode(latent)


class LitAutoencoder(lightning.LightningModule):
    """Reconstruction (L1, L2, LPIPS) with a small KL term.

    Args:
        autoencoder: The fresh model.
        training: The recipe.
        photos: ``[N, 3, S, S]`` uint8 portraits.
        frames: ``[M, 3, S, S]`` uint8 video frames; may be empty.
        perceptual: The LPIPS module; not trained and not saved.
    """

    def __init__(
        self,
        *,
        autoencoder: PictureAutoencoder,
        training: AutoencoderTraining,
        photos: Tensor,
        frames: Tensor,
        perceptual: PerceptualDistance,
    ) -> None:
        super().__init__()
        self.training_recipe = training
        self.model = NormalizedAutoencoder(autoencoder).to(memory_format=torch.channels_last)
        self.average = Average(self.model, training.average_decay)
        self.stopwatch = Stopwatch()
        self._photos, self._frames = photos, frames
        # A list hides the frozen network from parameters, checkpoints and weight averages.
        self._perceptual = [perceptual]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the rate is set every step from the schedule."""
        rate = self.training_recipe.schedule.peak_rate
        return torch.optim.AdamW(
            self.model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4
        )

    def on_fit_start(self) -> None:
        """Put the frozen network on the device of the model."""
        self._perceptual[0].to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the training time, on which the learning rate depends."""
        checkpoint["seconds"] = self.stopwatch.seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting the training time."""
        self.stopwatch.restart(checkpoint["seconds"])

    def batch(self, step: int) -> Tensor:
        """The pictures of a step, ``[B, 3, H, W]`` in [-1, 1]; a function of seed and step."""
        recipe, size = self.training_recipe, self.model.frames.shape.sample_size
        generator = seeded(recipe.seed, step, "autoencoder-batch")
        from_frames = torch.rand(recipe.batch_size, generator=generator) < recipe.frame_share
        count = int(from_frames.sum()) if len(self._frames) else 0
        picks = torch.randint(2**31, (recipe.batch_size,), generator=generator).tolist()
        parts = []
        for source, chosen in (
            (self._frames, picks[:count]),
            (self._photos, picks[count:]),
        ):
            if chosen:
                indices = [pick % len(source) for pick in chosen]
                parts.append(random_crops(source, indices, size=size, generator=generator))
        images = torch.cat(parts).to(self.device)
        return images.to(memory_format=torch.channels_last)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> int | None:
        """Set the rate; stop when the schedule is over (-1 ends the epoch)."""
        schedule = self.training_recipe.schedule
        seconds = self.stopwatch.seconds()
        if schedule.progress(self.global_step, seconds) >= 1.0:
            self.trainer.should_stop = True
            return -1
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = schedule.rate(self.global_step, seconds)
        return None

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Loss of one step; the batch argument only counts steps."""
        recipe, step = self.training_recipe, self.global_step
        images = self.batch(step)
        mean, logvar = self.model.encode(images)
        noise = torch.randn(mean.shape, generator=seeded(recipe.seed, step, "latent-noise"))
        latent = mean + torch.exp(0.5 * logvar) * noise.to(mean.device)
        decoded = self.model.decode(latent).float()
        error = decoded - images
        divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        terms = {
            "l1": error.abs().mean(),
            "l2": error.square().mean(),
            "lpips": self._perceptual[0](decoded, images).float().mean(),
            "kl": divergence,
        }
        if step % recipe.log_every == 0:
            line = " ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
            seconds = self.stopwatch.seconds()
            rate = recipe.schedule.rate(step, seconds)
            print(f"autoencoder step {step} {seconds:.0f} s rate {rate:.2e} {line}", flush=True)
        return (
            recipe.l1_weight * terms["l1"]
            + recipe.l2_weight * terms["l2"]
            + recipe.perceptual_weight * terms["lpips"]
            + recipe.kl_weight * terms["kl"]
        )

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Follow the weights."""
        self.average.update(self.model, self.global_step)
