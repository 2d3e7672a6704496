"""TensorBoard: losses per photo and objective; photo, cloak and amplified residual."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import WorkGroup


class TensorBoardRecorder(pl.Callback):
    """Writes per-term scalars every few steps and three pictures per photo at its last step.

    Args:
        every: steps between scalars.
        residual_gain: factor on the residual in its picture.
    """

    def __init__(self, every: int = 5, residual_gain: float = 10.0) -> None:
        self.every, self.residual_gain = every, residual_gain

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Record the step that was just taken."""
        assert isinstance(pl_module, CloakModule)
        group: WorkGroup = batch
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                self._record(logger.experiment, pl_module, group, outputs or {})

    def _record(
        self, board: Any, module: CloakModule, group: WorkGroup, report: dict[str, Any]
    ) -> None:
        last = module.settings.attack.steps
        for job in group.jobs:
            terms = report.get(job.key)
            if terms is None:
                continue
            if job.step % self.every == 0 or job.step == last:
                for term, value in terms.items():
                    board.add_scalar(f"{job.key}/{term}", value, job.step)
            if job.step == last:
                self._pictures(board, module, job.key, job)

    @torch.no_grad()
    def _pictures(self, board: Any, module: CloakModule, key: str, job: Any) -> None:
        cloak = module.loop.cloaked_canvas(job)[0]
        residual = (0.5 + self.residual_gain * (cloak - job.canvas[0])).clamp(0, 1)
        strip = torch.cat([job.canvas[0], cloak.clamp(0, 1), residual], dim=-1).cpu()
        board.add_image(f"{key}/photo_cloak_residual", strip, job.attempt)
