"""Stage three: train the denoiser on encoded clips with v-prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from anti_i2v_lit.surrogates.embedded.anchor import (
    AnchorOptions,
    anchor_copy_init,
    trainable_positions,
)
from anti_i2v_lit.surrogates.embedded.denoiser import (
    DenoiserShape,
    Transformer,
    build_denoiser,
    build_scheduler,
    rotary_tables,
)
from anti_i2v_lit.surrogates.embedded.photos import seeded
from anti_i2v_lit.surrogates.embedded.schedule import Average, Schedule, Stopwatch
from anti_i2v_lit.surrogates.embedded.text import (
    build_text_encoder,
    build_tokenizer,
    embed_prompts,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """Recipe of the denoiser."""

    schedule: Schedule  # length and learning rate
    batch_size: int = 8  # clips a step
    average_decay: float = 0.998  # decay of the weight average, [0, 1)
    weight_decay: float = 0.01  # AdamW weight decay
    variance_power: float = 1.0  # loss weight of a latent channel: its deviation to this power
    anchor: AnchorOptions | None = dataclasses.field(default_factory=AnchorOptions)  # None: usual
    seed: int = 0  # seed of everything drawn in this stage
    log_every: int = 50  # steps between printed lines

    def __post_init__(self) -> None:
        """Refuse impossible recipes."""
        if self.batch_size < 1 or not 0 <= self.average_decay < 1 or self.weight_decay < 0:
            raise ValueError(
                f"batch_size={self.batch_size}, average_decay={self.average_decay}, weight_decay="
                f"{self.weight_decay} arrived; expected 1 or more, a share below 1, 0 or more."
            )


def initial_denoiser(
    shape: DenoiserShape, *, anchor: AnchorOptions | None, seed: int
) -> Transformer:
    """A denoiser with trainable positions; its weights depend on the arguments alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_denoiser(shape)
    trainable_positions(model)
    if anchor is not None:
        anchor_copy_init(model, anchor)
    return model


class LitDenoiser(lightning.LightningModule):
    """v-prediction of all frames; the first frame's latent is the condition.

    Args:
        shape: Sizes of the model.
        training: The recipe.
        latents: ``[N, T, C, h, w]`` whitened latents of clips.
        captions: One a clip; empty ones train the unconditional model.
        deviations: ``[C]`` standard deviations of the latent channels before whitening.
    """

    def __init__(
        self,
        *,
        shape: DenoiserShape,
        training: DenoiserTraining,
        latents: Tensor,
        captions: Sequence[str],
        deviations: Tensor,
    ) -> None:
        super().__init__()
        self.recipe, self.shape = training, shape
        self.model = initial_denoiser(shape, anchor=training.anchor, seed=training.seed)
        self.average = Average(self.model, training.average_decay)
        self.stopwatch = Stopwatch()
        known = sorted(set(captions))
        table = embed_prompts(known, build_tokenizer(), build_text_encoder())
        self._latents, self._text = latents, table
        self._caption = torch.tensor([known.index(caption) for caption in captions])
        cosines, sines = rotary_tables(shape)
        weights = deviations.float() ** training.variance_power
        constants = {
            "alphas": build_scheduler().alphas_cumprod.float(),  # type: ignore[attr-defined]
            "cosines": cosines,
            "sines": sines,
            "channel_weights": weights / weights.mean(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
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

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clean latents, prompt embeddings, noise and timesteps of a step, on the device."""
        generator = seeded(self.recipe.seed, step, "denoiser-batch")
        count = self.recipe.batch_size
        picks = torch.randint(len(self._latents), (count,), generator=generator)
        clean = self._latents[picks].float()
        noise = torch.randn(clean.shape, generator=generator)
        # One timestep from each equal part of the range: the loss of a step varies less.
        parts = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        timesteps = (parts * len(self.alphas)).long()  # type: ignore[arg-type]
        text = self._text[self._caption[picks]]
        return tuple(part.to(self.device) for part in (clean, text, noise, timesteps))  # type: ignore[return-value]

    def error(self, clean: Tensor, text: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Squared error of the predicted v, ``[B, T, C, h, w]``."""
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1, 1)  # type: ignore[index]
        signal, spread = alpha.sqrt(), (1.0 - alpha).sqrt()
        noisy = signal * clean + spread * noise
        target = signal * noise - spread * clean
        condition = torch.zeros_like(clean)
        condition[:, 0] = clean[:, 0]
        predicted = self.model(
            hidden_states=torch.cat([noisy, condition], dim=2),
            encoder_hidden_states=text,
            timestep=timesteps,
            image_rotary_emb=(self.cosines, self.sines),
            return_dict=False,
        )[0]
        return (predicted.float() - target).square()

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Loss of one step; the batch argument only counts steps."""
        errors = self.error(*self.draw(self.global_step))
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
