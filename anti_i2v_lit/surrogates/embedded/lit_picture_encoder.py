"""Train an image encoder to tell people apart: two views of one person are near each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional

from anti_i2v_lit.surrogates.embedded.family import PictureEncoder
from anti_i2v_lit.surrogates.embedded.photos import random_crops, seeded
from anti_i2v_lit.surrogates.embedded.schedule import Average, Schedule, Stopwatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureEncoderTraining:
    """Recipe of the image encoder."""

    schedule: Schedule  # length and learning rate
    people: int = 32  # people a step, two views of each
    temperature: float = 0.1  # divides cosines in the contrastive loss
    smallest_crop: float = 0.5  # side of the smallest view, share of the photo
    colour: float = 0.3  # largest change of brightness, contrast and saturation, shares
    average_decay: float = 0.99  # decay of the weight average, [0, 1)
    weight_decay: float = 0.05  # AdamW weight decay
    seed: int = 0  # seed of everything drawn in this stage
    log_every: int = 25  # steps between printed lines

    def __post_init__(self) -> None:
        """Refuse impossible recipes."""
        if self.people < 2 or self.temperature <= 0:
            raise ValueError(
                f"people={self.people}, temperature={self.temperature} arrived; expected 2 or more "
                "people and a positive temperature; raise them."
            )
        if not (0 < self.smallest_crop <= 1 and 0 <= self.colour < 1):
            raise ValueError(
                f"smallest_crop={self.smallest_crop}, colour={self.colour} arrived; expected "
                "shares in (0, 1] and [0, 1); correct them."
            )


class LitPictureEncoder(lightning.LightningModule):
    """Normalised-temperature cross-entropy (Chen et al. 2020, SimCLR) over people.

    Args:
        model: The fresh image encoder.
        training: The recipe.
        photos: ``[N, 3, S, S]`` uint8, one photo a person.
        size: Side of the views in pixels, as the model meets them later.
    """

    def __init__(
        self,
        *,
        model: PictureEncoder,
        training: PictureEncoderTraining,
        photos: Tensor,
        size: int,
    ) -> None:
        super().__init__()
        self.recipe, self.model, self.size = training, model, size
        self.average = Average(model, training.average_decay)
        self.stopwatch = Stopwatch()
        self._photos = photos

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the rate is set every step from the schedule."""
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=self.recipe.schedule.peak_rate,
            weight_decay=self.recipe.weight_decay,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the training time, on which the learning rate depends."""
        checkpoint["seconds"] = self.stopwatch.seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting the training time."""
        self.stopwatch.restart(checkpoint["seconds"])

    def views(self, step: int) -> Tensor:
        """``[2 * people, 3, size, size]`` in [-1, 1]; rows ``i`` and ``i + people`` belong."""
        recipe = self.recipe
        generator = seeded(recipe.seed, step, "picture-encoder-batch")
        picks = torch.randperm(len(self._photos), generator=generator)[: recipe.people].tolist()
        crops = random_crops(
            self._photos,
            picks + picks,
            size=self.size,
            generator=generator,
            smallest=recipe.smallest_crop,
        )
        changes = 2.0 * torch.rand(3, len(crops), 1, 1, 1, generator=generator) - 1.0
        brightness, contrast, saturation = recipe.colour * changes
        grey = crops.mean(dim=1, keepdim=True)
        crops = grey + (crops - grey) * (1.0 + saturation)
        return (crops * (1.0 + contrast) + brightness).clamp(-1.0, 1.0).to(self.device)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> int | None:
        """Set the rate; stop when the schedule is over (-1 ends the epoch)."""
        schedule, seconds = self.recipe.schedule, self.stopwatch.seconds()
        if schedule.progress(self.global_step, seconds) >= 1.0:
            self.trainer.should_stop = True
            return -1
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = schedule.rate(self.global_step, seconds)
        return None

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Loss of one step; the batch argument only counts steps."""
        vectors = functional.normalize(self.model.embed(self.views(self.global_step)).float())
        count = len(vectors)
        likeness = vectors @ vectors.T / self.recipe.temperature
        likeness = likeness.masked_fill(
            torch.eye(count, dtype=torch.bool, device=self.device), -1e9
        )
        partners = torch.arange(count, device=self.device).roll(count // 2)
        loss = functional.cross_entropy(likeness, partners)
        if self.global_step % self.recipe.log_every == 0:
            found = (likeness.argmax(1) == partners).float().mean()
            print(
                f"picture encoder step {self.global_step} {self.stopwatch.seconds():.0f} s "
                f"loss {loss.item():.3f} found {found.item():.2f}",
                flush=True,
            )
        return loss

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Follow the weights."""
        self.average.update(self.model, self.global_step)
