"""What a person sees while photos are cloaked: photos, step, loss, photos per hour, time left."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from anti_i2v_lit.archive.ledger import Row
from anti_i2v_lit.lit.datamodule import PhotoDataModule, WorkGroup


class CloakProgress(pl.Callback):
    """A bar over the sign steps of all photos of this rank, with rates and the time left.

    Args:
        steps: sign steps per photo.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done: dict[str, int] = {"cloaked": 0, "refused": 0, "failed": 0}
        self._bar: tqdm[Any] | None = None
        self._started = time.monotonic()
        self._photos = 0

    def heard(self, row: Row) -> None:
        """Count a row as it is written."""
        self.done[row.status] += 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar on rank 0."""
        del pl_module
        self._started = time.monotonic()
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PhotoDataModule) and data.stream is not None
        groups = data.stream.groups
        self._photos = sum(len(set(g) - data.stream.finished) for g in groups)
        if trainer.is_global_zero:
            self._bar = tqdm(total=self._photos * self.steps, unit="step", dynamic_ncols=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance by the steps taken."""
        if self._bar is None:
            return
        group: WorkGroup = batch
        report: dict[str, dict[str, float]] = {
            k: v for k, v in (outputs or {}).items() if isinstance(v, dict)
        }
        self._bar.update(len(report))
        hours = (time.monotonic() - self._started) / 3600
        speed = f"{self.done['cloaked'] / hours:.0f}" if hours > 0 else "-"
        name = group.keys[0] if len(group.keys) == 1 else f"{group.keys[0]} +{len(group.keys) - 1}"
        self._bar.set_description_str(name[-40:], refresh=False)
        shown = {"photos": f"{sum(self.done.values())}/{self._photos}", "photos/h": speed}
        if report:
            steps = max((job.step for job in group.jobs), default=self.steps)
            shown["step"] = f"{steps}/{self.steps}"
            losses = [terms["total"] for terms in report.values()]
            shown["loss"] = f"{sum(losses) / len(losses):.4f}"
        problems = self.done["refused"] + self.done["failed"]
        if problems:
            shown["not cloaked"] = str(problems)
        self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
