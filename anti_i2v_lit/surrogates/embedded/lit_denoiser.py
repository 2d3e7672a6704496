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
    portraits_every: int = 0  # every so many steps are on single frames without latent; 0: none
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
        if self.portraits_every < 0:
            raise ValueError(
                f"portraits_every={self.portraits_every} arrived; expected a number of steps, or 0 "
                "for none."
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
        self._portrait_errors: list[Tensor] = []

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

    def is_portrait(self, step: int) -> bool:
        """Whether a step is made of single frames."""
        every = self.recipe.portraits_every
        return every > 0 and step % every == every - 1

    def draw_portraits(self, step: int) -> Batch:
        """Single frames of as many clips as cost the same, known by their image tokens alone.

        Beside a latent the tokens tell little that is new, and what little they change is lost in
        the noise of a small batch: the model learns to pass them over. Noise is high, where they
        tell most.
        """
        generator = seeded(self.recipe.seed, step, "denoiser-portraits")
        frames = self._clips.latents.shape[1]
        count = self.recipe.batch_size * frames
        picks = torch.randint(len(self._clips.latents), (count,), generator=generator)
        shown = torch.randint(frames, (count,), generator=generator)
        clean = self._clips.latents[picks, shown][:, None].float()
        noise = torch.randn(clean.shape, generator=generator)
        parts = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        timesteps = ((0.3 + 0.7 * parts) * len(self.denoising.alphas)).long()
        condition = ClipCondition(
            first=torch.zeros_like(clean[:, 0]),
            text=self._text[self._caption[picks]],
            picture=self._clips.tokens[picks].float(),
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
        portrait = self.is_portrait(self.global_step)
        draw, kept = (
            (self.draw_portraits, self._portrait_errors) if portrait else (self.draw, self._errors)
        )
        errors = self.error(draw(self.global_step))
        weights = self.channel_weights.view(1, 1, -1, 1, 1)  # type: ignore[operator]
        kept.append(errors.detach().mean(dim=(2, 3, 4)).cpu())
        if self.global_step % self.recipe.log_every == 0 and self._errors:
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
            f"loss {stack.mean():.4f} frames {frames} quarters {times}{self._portraits()}",
            flush=True,
        )

    def _portraits(self) -> str:
        """The error of single frames since the last line, by quarter of their time."""
        if not self._portrait_errors:
            return ""
        quarters = torch.stack(self._portrait_errors).mean(dim=(0, 2)).tensor_split(4)
        self._portrait_errors = []
        return " portraits " + " ".join(f"{part.mean():.3f}" for part in quarters)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Follow the weights."""
        self.average.update(self.model, self.global_step)
