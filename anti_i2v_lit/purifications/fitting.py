"""Training of the small networks that attackers would train: time-limited, resumable."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from pathlib import Path
from time import monotonic
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from anti_i2v_lit.seeds import generator_for

_WARM_UP_STEPS = 100
_ENDLESS = 10**9  # items of an epoch; the clock ends the training


class TimedTraining(lightning.LightningModule):
    """Trains one network until a time is spent, over any number of interruptions.

    The learning rate falls as half a cosine of the share of the time that is spent. A variant
    provides `loss`. The result is `result()`: the weights averaged over the last steps.

    Args:
        network: what is trained.
        minutes: training time, summed over all runs.
        learning_rate: the largest one, of AdamW.
        average_decay: decay of the weight average per step, in [0, 1).
        seed: of everything drawn.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        minutes: float,
        learning_rate: float,
        average_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        if not minutes > 0:
            raise ValueError(f"minutes: expected more than 0, got {minutes:g}")
        self.network = network

        def blend(average: Tensor, latest: Tensor, count: Tensor | int) -> Tensor:
            # The first weights, which know nothing, are forgotten sooner.
            decay = min(average_decay, (1 + int(count)) / (10 + int(count)))
            return average.lerp(latest, 1.0 - decay)

        self.average = AveragedModel(network, avg_fn=blend)
        self.seconds, self.learning_rate, self.seed = 60.0 * minutes, learning_rate, seed
        self.seconds_spent = 0.0
        self._last = 0.0

    @abstractmethod
    def loss(self, generator: torch.Generator) -> Tensor:
        """The loss of one step, all of its randomness from `generator`."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step; the batch is the loader's counter and says nothing."""
        share = min(1.0, self.seconds_spent / self.seconds)
        warm = min(1.0, (self.global_step + 1) / _WARM_UP_STEPS)
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * share))
        loss = self.loss(generator_for(self.seed, "", self.global_step, "batch"))
        self.log("loss", loss.detach())
        return loss

    def on_train_start(self) -> None:
        """Start the clock."""
        self._last = monotonic()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average the weights; stop when the time is spent."""
        self.average.update_parameters(self.network)
        now = monotonic()
        self.seconds_spent, self._last = self.seconds_spent + now - self._last, now
        if self.global_step % 100 == 0:
            loss = float(self.trainer.callback_metrics["loss"])
            self.print(f"step {self.global_step}, {self.seconds_spent:.0f} s, loss {loss:.5f}")
        if self.seconds_spent >= self.seconds:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the time that is spent."""
        checkpoint["seconds_spent"] = self.seconds_spent

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the spent time up again."""
        self.seconds_spent = checkpoint["seconds_spent"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the network."""
        return torch.optim.AdamW(self.network.parameters(), lr=self.learning_rate)

    def result(self) -> nn.Module:
        """The averaged network, in float32, on the CPU, for use."""
        return copy.deepcopy(self.average.module).float().cpu().eval().requires_grad_(False)


class _Counter(Dataset[int]):
    """Nothing but numbers: the modules draw their own batches."""

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> int:
        return index


def fit(module: TimedTraining, folder: Path, *, save_every_steps: int = 100) -> None:
    """Train until the module's time is spent, from `folder/last.ckpt` if there is one.

    Args:
        module: what is trained.
        folder: of the checkpoint.
        save_every_steps: steps between checkpoints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "last.ckpt"
    saver = ModelCheckpoint(
        dirpath=folder,
        filename=last.stem,
        every_n_train_steps=save_every_steps,
        save_top_k=1,
        monitor=None,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed",
        max_epochs=-1,
        gradient_clip_val=1.0,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(_Counter(), batch_size=1)
    trainer.fit(module, loader, ckpt_path=str(last) if last.exists() else None)
    trainer.save_checkpoint(last)
