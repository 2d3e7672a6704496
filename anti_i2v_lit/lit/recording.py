"""The record of a run: one folder per run and rank, with a CSV file and TensorBoard's events.

`DIR/.anti_i2v/logs/<run>/rank-0000/metrics.csv` and, beside it, the events. A run that was killed
and started again is another run with a folder of its own, so no file is written by two of them.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter
from torch.utils.tensorboard.summary import image

from anti_i2v_lit.archive.paths import logs_folder
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.cluster import whereabouts
from anti_i2v_lit.lit.datamodule import WorkGroup
from anti_i2v_lit.lit.gauges import Pace, gpu_memory_mb, host_memory_mb
from anti_i2v_lit.lit.metrics_file import MetricsFile

QUALITY = ("psnr", "ssim", "ciede2000", "lpips", "max_change_8bit", "residual_kept", "loss_kept")
COLUMNS = (
    *("time", "node", "job", "rank", "photo", "event", "attempt", "step", "loss"),
    *("budget_8bit", "canvas_change_8bit", *QUALITY, "seconds"),
    *("photos_done", "photos_per_hour", "gpu_memory_mb", "host_memory_mb", "reason"),
)


class RunRecorder(pl.Callback):
    """Records some steps, and the outcome, of every photo of this rank.

    Must stand before the writer among the callbacks, which takes finished photos away.

    Args:
        out: folder of the cloaks.
        pace: counts photos; the writer's rows reach it by others.
        every: steps between two records of a photo.
        shown: photos of this rank that get pictures and curves of their own in TensorBoard; it
            cannot show thousands.
        residual_gain: factor on the residual in its picture.
    """

    def __init__(
        self,
        out: Path,
        pace: Pace,
        *,
        every: int = 5,
        shown: int = 32,
        residual_gain: float = 10.0,
    ) -> None:
        self._out, self._pace = out, pace
        self.every, self.shown, self.residual_gain = every, shown, residual_gain
        self._file: MetricsFile | None = None
        self._board: FileWriter | None = None
        self._place: dict[str, Any] = {}
        self._device = torch.device("cpu")
        self._steps = 0
        self._seen: dict[str, None] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open this rank's folder in that of the run, which rank 0 names."""
        del pl_module
        place = whereabouts()
        self._place = {"node": place["node"], "job": place["job"], "rank": trainer.global_rank}
        name = trainer.strategy.broadcast(_run_name(place))
        folder = logs_folder(self._out) / name / f"rank-{trainer.global_rank:04d}"
        self._device = trainer.strategy.root_device
        self._file = MetricsFile(folder / "metrics.csv", COLUMNS)
        self._board = FileWriter(str(folder))

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
        report: dict[str, Any] = {k: v for k, v in (outputs or {}).items() if isinstance(v, dict)}
        last = pl_module.settings.attack.steps
        self._steps += bool(report)
        for job in group.jobs:
            if job.key in report and (job.step % self.every == 0 or job.step == last):
                self._step(pl_module, job, report[job.key], last=job.step == last)

    def heard(self, row: Row) -> None:
        """Record a photo's outcome."""
        if self._file is None:  # names that could not be followed, before the first step
            return
        quality = {name: getattr(row, name) for name in QUALITY}
        gauges = self._add(
            photo=row.key,
            event=row.status,
            step=row.steps,
            loss=row.loss_last,
            budget_8bit=row.budget_8bit,
            seconds=row.seconds,
            reason=row.reason,
            **quality,
        )
        self._scalars("run", gauges, self._pace.done)
        self._scalars("quality", {**quality, "loss": row.loss_last}, self._pace.done)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the files."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the files."""
        self._close()

    def _close(self) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()
        self._file = self._board = None

    def _step(
        self, module: CloakModule, job: PhotoJob, terms: dict[str, float], last: bool
    ) -> None:
        with torch.no_grad():
            cloak = module.loop.cloaked_canvas(job)[0]
            change = 255 * float((cloak - job.canvas[0]).abs().max())
        found = {"budget_8bit": job.budget_8bit, "canvas_change_8bit": change}
        gauges = self._add(
            photo=job.key,
            event="step",
            attempt=job.attempt,
            step=job.step,
            loss=terms["total"],
            seconds=job.seconds,
            **found,
        )
        self._scalars("step", {**terms, **found, **gauges}, self._steps)
        if len(self._seen) < self.shown or job.key in self._seen:
            self._seen[job.key] = None
            self._scalars(_tag(job.key), terms, job.step)
            if last:
                self._picture(job, cloak)

    def _add(self, **values: object) -> dict[str, float | None]:
        """One line; returns its gauges."""
        assert self._file is not None
        gauges = {
            "photos_done": self._pace.done,
            "photos_per_hour": self._pace.photos_per_hour,
            "gpu_memory_mb": gpu_memory_mb(self._device),
            "host_memory_mb": host_memory_mb(),
        }
        self._file.add({"time": _now(), **self._place, **values, **gauges})
        return gauges

    def _scalars(self, group: str, values: Mapping[str, float | None], at: int) -> None:
        """One event for all of them: every event opens the file, in TensorBoard's own writer."""
        assert self._board is not None
        found = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values.items()
            if value is not None
        ]
        self._board.add_summary(Summary(value=found), at)

    def _picture(self, job: PhotoJob, cloak: torch.Tensor) -> None:
        assert self._board is not None
        residual = (0.5 + self.residual_gain * (cloak - job.canvas[0])).clamp(0, 1)
        strip = torch.cat([job.canvas[0], cloak.clamp(0, 1), residual], dim=-1).cpu()
        name = f"{_tag(job.key)}/photo_cloak_residual"
        self._board.add_summary(image(name, strip, dataformats="CHW"), job.attempt)


def _run_name(place: Mapping[str, Any]) -> str:
    """A folder name that sorts by time and is of this run alone, also among one process' runs."""
    start = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S.%f")
    job = f"job{place['job']}-" if place["job"] else ""
    return f"{start}-{job}{place['node']}-{os.getpid()}"


def _tag(key: str) -> str:
    """A photo's key as TensorBoard takes it: UTF-8, which a file's name need not be."""
    return key.encode(errors="backslashreplace").decode()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
