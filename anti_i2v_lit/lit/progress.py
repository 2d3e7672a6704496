"""What a person sees while photos are cloaked: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import datetime
import sys
import time
from abc import ABC, abstractmethod
from typing import Any, final

import lightning.pytorch as pl
from tqdm import tqdm

from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.lit.cluster import whereabouts
from anti_i2v_lit.lit.datamodule import PhotoDataModule, WorkGroup
from anti_i2v_lit.lit.gauges import Pace, gpu_memory_mb, host_memory_mb

HEARTBEAT_SECONDS = 60.0


class Display(ABC):
    """Shows how far a rank is.

    Args:
        pace: photos of this rank.
        steps: sign steps per photo.
    """

    def __init__(self, pace: Pace, steps: int) -> None:
        self.pace, self.steps = pace, steps

    @abstractmethod
    def start(self, trainer: pl.Trainer) -> None:
        """The first step comes next."""

    @abstractmethod
    def stepped(self, group: WorkGroup, losses: list[float]) -> None:
        """A step was taken on as many photos as there are losses."""

    @abstractmethod
    def photo(self, row: Row) -> None:
        """A photo has its row."""

    @abstractmethod
    def close(self) -> None:
        """The last step was taken."""


@final
class Bar(Display):
    """One bar over the sign steps of rank 0's photos, for a terminal."""

    _bar: tqdm[Any] | None = None

    def start(self, trainer: pl.Trainer) -> None:
        """See `Display`."""
        if trainer.is_global_zero:
            total = self.pace.total * self.steps
            self._bar = tqdm(total=total, unit="step", dynamic_ncols=True)

    def stepped(self, group: WorkGroup, losses: list[float]) -> None:
        """See `Display`."""
        if self._bar is None:
            return
        self._bar.update(len(losses))
        self._bar.set_description_str(_name(group)[-40:], refresh=False)
        counts = self.pace.counts
        shown = {
            "photos": f"{self.pace.done}/{self.pace.total}",
            "photos/h": f"{self.pace.photos_per_hour:.0f}",
        }
        if losses:
            step = max((job.step for job in group.jobs), default=self.steps)
            shown["step"] = f"{step}/{self.steps}"
            shown["loss"] = f"{sum(losses) / len(losses):.4f}"
        if counts["refused"] + counts["failed"]:
            shown["not cloaked"] = str(counts["refused"] + counts["failed"])
        self._bar.set_postfix(shown, refresh=False)

    def photo(self, row: Row) -> None:
        """See `Display`."""

    def close(self) -> None:
        """See `Display`."""
        if self._bar is not None:
            self._bar.close()


@final
class Lines(Display):
    """A line per photo, and a sign of life in between, on every rank: for logs of batch jobs."""

    def __init__(self, pace: Pace, steps: int) -> None:
        super().__init__(pace, steps)
        self._place = ""
        self._device: Any = None
        self._last = time.monotonic()

    def start(self, trainer: pl.Trainer) -> None:
        """See `Display`."""
        place = whereabouts()
        job = f" job {place['job']}" if place["job"] else ""
        self._place = f"{place['node']}{job} rank {trainer.global_rank}: "
        self._device = trainer.strategy.root_device
        self._say(f"{self.pace.total} photos to do, {self.steps} steps each")

    def stepped(self, group: WorkGroup, losses: list[float]) -> None:
        """See `Display`."""
        if not losses or time.monotonic() - self._last < HEARTBEAT_SECONDS:
            return
        step = max((job.step for job in group.jobs), default=self.steps)
        memory = f"{host_memory_mb():.0f} MB of memory"
        gpu = gpu_memory_mb(self._device)
        memory += f", {gpu:.0f} MB on the GPU" if gpu is not None else ""
        loss = sum(losses) / len(losses)
        self._say(f"{_name(group)} at step {step}/{self.steps}, loss {loss:.4f}, {memory}")

    def photo(self, row: Row) -> None:
        """See `Display`."""
        if row.status == "cloaked":
            psnr = "" if row.psnr is None else f", {row.psnr:.1f} dB"
            loss = "" if row.loss_last is None else f", loss {row.loss_first} -> {row.loss_last}"
            self._say(f"{row.key} cloaked in {row.seconds:.1f} s, {row.steps} steps{loss}{psnr}")
        else:
            self._say(f"{row.key} {row.status}: {row.reason}")

    def close(self) -> None:
        """See `Display`."""
        counts = ", ".join(f"{count} {name}" for name, count in self.pace.counts.items())
        self._say(f"no more steps: {counts}")

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        rate = f"[{self.pace.done}/{self.pace.total}, {self.pace.photos_per_hour:.0f} photos/h]"
        # One write, so that lines of several ranks in one file do not mix.
        line = f"{now} {self._place}{text} {rate}\n"
        sys.stderr.write(line.encode(errors="backslashreplace").decode())
        sys.stderr.flush()


class CloakProgress(pl.Callback):
    """Keeps the pace of this rank and shows it.

    Args:
        steps: sign steps per photo.
        pace: counts this rank's photos.
    """

    def __init__(self, steps: int, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        kind = Bar if sys.stderr.isatty() else Lines
        self.display: Display = kind(self.pace, steps)

    def heard(self, row: Row) -> None:
        """Count a row as it is written."""
        self.pace.count(row)
        self.display.photo(row)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what is to be done."""
        del pl_module
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PhotoDataModule) and data.stream is not None
        finished = data.stream.finished
        self.pace.start(sum(len(set(group) - finished) for group in data.stream.groups))
        self.display.start(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance by the steps taken."""
        report = [value for value in (outputs or {}).values() if isinstance(value, dict)]
        self.display.stepped(batch, [terms["total"] for terms in report])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how it ended."""
        self.display.close()


def _name(group: WorkGroup) -> str:
    first, others = group.keys[0], len(group.keys) - 1
    return f"{first} +{others}" if others else first
