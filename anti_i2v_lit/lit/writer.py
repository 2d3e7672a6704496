"""Publishes finished photos and writes their rows, one at a time, as soon as they are done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.archive.paths import staging_folder
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.finishing import Finisher, Verdict
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import LoadedPhoto, PhotoDataModule, WorkGroup
from anti_i2v_lit.settings import Settings

Listener = Callable[[Row], None]


class CloakWriter(pl.Callback):
    """Turns optimised photos into files and ledger rows.

    Args:
        settings: settings of the run.
        out: folder of the cloaks.
        listeners: called with every row as it is written.
    """

    def __init__(
        self, settings: Settings, *, out: Path | str, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self.settings, self.out, self.listeners = settings, Path(out), listeners
        self.ledger = Ledger(self.out)
        self._finisher: Finisher | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the ledger; record what could not even be opened as a file.

        Raises:
            ValueError: the folder was made with other settings.
        """
        if trainer.is_global_zero:
            self.ledger.open(self.settings.identity())
            data = trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(data, PhotoDataModule), "pass datamodule=PhotoDataModule(...) to fit"
            for key, reason in data.scanned.broken:
                self._append(Row(key=key, status="failed", reason=reason))
        trainer.strategy.barrier("ledger opened")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the other ranks, so that report and exit code know all rows."""
        trainer.strategy.barrier("all photos done")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record photos that could not be read when their group comes up."""
        group: WorkGroup = batch
        for key, (path, reason) in group.failures.items():
            self._append(Row(key=key, status="failed", reason=reason, source=path))
        group.failures.clear()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """When every photo of a group has its steps: publish, retry or refuse each."""
        assert isinstance(pl_module, CloakModule)
        group: WorkGroup = batch
        self._record_broken(group)
        if any(job.step < self.settings.attack.steps for job in group.jobs):
            return
        if group.jobs:
            # From here on a kill costs no step: the finished perturbations are on disk.
            pl_module.save(group)
        again = [
            job for job in group.jobs if not self._settle(pl_module, job, group.loaded[job.key])
        ]
        for job in [j for j in group.jobs if j not in again]:
            pl_module.release(job)
        for job in again:
            pl_module.restart(job, job.budget_8bit * self.settings.gate.budget_factor)
        group.jobs = again
        if again:
            pl_module.save(group)
        else:
            pl_module.store.discard(group.keys)
            group.done = True

    def finisher(self, module: CloakModule) -> Finisher:
        """The one that writes and judges files, made on first use."""
        if self._finisher is None:
            self._finisher = Finisher(
                loop=module.loop,
                framing=module.framing,
                gate=self.settings.gate,
                reading=self.settings.reading,
                output=self.settings.output,
                out=self.out,
                staging=staging_folder(self.out),
            )
        return self._finisher

    def _record_broken(self, group: WorkGroup) -> None:
        for key, reason in group.broken.items():
            loaded = group.loaded[key]
            self._append(
                Row(
                    key=key,
                    status="failed",
                    reason=reason,
                    source=str(loaded.source.path),
                    source_sha256=loaded.decoded.source_sha256,
                    config_sha256=self.settings.digest(),
                    seed=self.settings.seed,
                )
            )
        group.broken.clear()

    def _settle(self, module: CloakModule, job: PhotoJob, loaded: LoadedPhoto) -> bool:
        """Write a row and return True, or return False if another attempt is due."""
        finisher, started = self.finisher(module), time.perf_counter()
        try:
            verdict = finisher.finish(job, loaded.source, loaded.decoded)
        except PhotoFailure as failure:
            self._append(self._row(job, loaded, status="failed", reason=str(failure)))
            return True
        finally:
            job.seconds += time.perf_counter() - started
        last_attempt = job.attempt + 1 >= self.settings.gate.max_attempts
        if verdict.complaints and not last_attempt:
            return False
        reason = "too visible at every budget tried: " + "; ".join(verdict.complaints)
        row = self._row(job, loaded, status="refused", reason=reason)
        if not verdict.complaints:
            row = dataclasses.replace(
                row,
                status="cloaked",
                reason="",
                output=verdict.output,
                output_sha256=verdict.sha256,
            )
        self._append(_with_figures(row, verdict))
        return True

    def _row(self, job: PhotoJob, loaded: LoadedPhoto, *, status: str, reason: str) -> Row:
        return Row(
            key=job.key,
            status=status,
            reason=reason,
            source=str(loaded.source.path),
            source_sha256=loaded.decoded.source_sha256,
            surrogates=tuple(_label(node) for node in self.settings.surrogates),
            config_sha256=self.settings.digest(),
            seed=self.settings.seed,
            steps=job.step,
            budget_8bit=job.budget_8bit,
            seconds=round(job.seconds, 3),
        )

    def _append(self, row: Row) -> None:
        self.ledger.append(row)
        for listener in self.listeners:
            listener(row)


def _label(node: dict[str, Any]) -> str:
    return f"{node['name']}:{node.get('path', '')}"


def _with_figures(row: Row, verdict: Verdict) -> Row:
    figures = {
        name: None if value is None else round(float(value), 5)
        for name, value in verdict.figures.items()
    }
    return dataclasses.replace(
        row,
        loss_first=figures["loss_first"],
        loss_last=figures["loss_last"],
        psnr=figures["psnr"],
        ssim=figures["ssim"],
        ciede2000=figures["ciede2000"],
        lpips=figures["lpips"],
        max_change_8bit=figures["max_change_8bit"],
        residual_kept=figures["residual_kept"],
        loss_kept=figures["loss_kept"],
    )
