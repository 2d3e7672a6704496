"""Stage three: train the denoiser on encoded clips with v-prediction."""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.embedded.clips import EncodedClips
from anti_i2v_lit.surrogates.embedded.family import ClipCondition, Denoising
from anti_i2v_lit.surrogates.embedded.photos import seeded
from anti_i2v_lit.surrogates.embedded.schedule import Average, Schedule, Stopwatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """Recipe of the denoiser."""

    schedule: Schedule  # length and learning rate
    batch_size: int = 8  # clips a step
    average_decay: float = 0.998  # decay of the weight average, [0, 1)
    weight_decay: float = 0.01  # AdamW weight decay
    variance_power: float = 1.0  # loss weight of a latent channel: its deviation to this power
    seed: int = 0  # seed of everything drawn in this stage
    log_every: int = 50  # steps between printed lines

    def __post_init__(self) -> None:
        """Refuse impossible recipes."""
        if self.batch_size < 1 or not 0 <= self.average_decay < 1 or self.weight_decay < 0:
            raise ValueError(
                f"batch_size={self.batch_size}, average_decay={self.average_decay}, weight_decay="
                f"{self.weight_decay} arrived; expected 1 or more, a share below 1, 0 or more."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step is made of."""

    clean: Tensor  # [B, T, C, h, w]
    noise: Tensor  # the same
    timesteps: Tensor  # [B], rising
    condition: ClipCondition


class LitDenoiser(lightning.LightningModule):
    """v-prediction of all frames; the first frame is the condition.

    Args:
        model: The fresh denoiser.
        denoising: How it is told its conditions.
        training: The recipe.
        clips: Whitened latents, captions and image tokens; empty captions train the
            unconditional model.
        deviations: ``[C]`` standard deviations of the latent channels before whitening.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        denoising: Denoising,
        training: DenoiserTraining,
        clips: EncodedClips,
        deviations: Tensor,
    ) -> None:
        super().__init__()
        self.recipe, self.model, self.denoising = training, model, denoising
        self.average = Average(self.model, training.average_decay)
        self.stopwatch = Stopwatch()
        known = sorted(set(clips.captions))
        self._clips, self._text = clips, denoising.embed_prompts(known)
        self._caption = torch.tensor([known.index(caption) for caption in clips.captions])
        weights = deviations.float() ** training.variance_power
        self.register_buffer("channel_weights", weights / weights.mean(), persistent=False)
        self._errors: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the rate is set every step from the schedule."""
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=self.recipe.schedule.peak_rate,
            betas=(0.9, 0.95),
            weight_decay=self.recipe.weight_decay,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the training time, on which the learning rate depends."""
        checkpoint["seconds"] = self.stopwatch.seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting the training time."""
        self.stopwatch.restart(checkpoint["seconds"])

    def on_train_batch_start(self, batch: object, batch_idx: int) -> int | None:
        """Set the rate; stop when the schedule is over (-1 ends the epoch)."""
        schedule, seconds = self.recipe.schedule, self.stopwatch.seconds()
        if schedule.progress(self.global_step, seconds) >= 1.0:
            self.trainer.should_stop = True
            return -1
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = schedule.rate(self.global_step, seconds)
        return None

    def draw(self, step: int) -> Batch:
        """The clips, noise, timesteps and conditions of a step, on the device."""
        generator = seeded(self.recipe.seed, step, "denoiser-batch")
        count = self.recipe.batch_size
        picks = torch.randint(len(self._clips.latents), (count,), generator=generator)
        clean = self._clips.latents[picks].float()
        noise = torch.randn(clean.shape, generator=generator)
        # One timestep from each equal part of the range: the loss of a step varies less.
        parts = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        timesteps = (parts * len(self.denoising.alphas)).long()
        condition = ClipCondition(
            first=clean[:, 0],
            text=self._text[self._caption[picks]],
            picture=self._clips.tokens[picks].float(),
        )
        condition = self.denoising.withhold(
            condition, seeded(self.recipe.seed, step, "denoiser-withheld")
        )
        return Batch(
            clean=clean.to(self.device),
            noise=noise.to(self.device),
            timesteps=timesteps.to(self.device),
            condition=condition.to(self.device),
        )

    def error(self, batch: Batch) -> Tensor:
        """Squared error of the predicted v, ``[B, T, C, h, w]``."""
        alpha = self.denoising.alphas[batch.timesteps].view(-1, 1, 1, 1, 1)
        signal, spread = alpha.sqrt(), (1.0 - alpha).sqrt()
        noisy = signal * batch.clean + spread * batch.noise
        target = signal * batch.noise - spread * batch.clean
        predicted = self.denoising.predict(self.model, noisy, batch.timesteps, batch.condition)
        return (predicted.float() - target).square()

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Loss of one step; the batch argument only counts steps."""
        errors = self.error(self.draw(self.global_step))
        weights = self.channel_weights.view(1, 1, -1, 1, 1)  # type: ignore[operator]
        self._errors.append(errors.detach().mean(dim=(2, 3, 4)).cpu())
        if self.global_step % self.recipe.log_every == 0:
            self._report()
        return (errors * weights).mean()

    def _report(self) -> None:
        """Print the unweighted error since the last line, by frame and by quarter of time."""
        stack, seconds = torch.stack(self._errors), self.stopwatch.seconds()
        self._errors = []
        frames = " ".join(f"{value:.3f}" for value in stack.mean(dim=(0, 1)))
        # The clips of a batch are in order of their timesteps.
        quarters = stack.mean(dim=(0, 2)).tensor_split(4)
        times = " ".join(f"{part.mean():.3f}" for part in quarters if len(part))
        rate = self.recipe.schedule.rate(self.global_step, seconds)
        print(
            f"denoiser step {self.global_step} {seconds:.0f} s rate {rate:.2e} "
            f"loss {stack.mean():.4f} frames {frames} quarters {times}",
            flush=True,
        )

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Follow the weights."""
        self.average.update(self.model, self.global_step)
