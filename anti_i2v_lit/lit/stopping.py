"""SIGINT and SIGTERM finish the step and stop; what was saved is continued by the next run."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from anti_i2v_lit.lit.datamodule import PhotoDataModule


class StopOnSignal(pl.Callback):
    """Installs handlers that only set a flag, after Lightning installed its own.

    Lightning's handler for SIGTERM raises in the middle of the run, and its requeueing would
    start from a checkpoint that this package does not use.
    """

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers (Python allows that in the main thread only)."""
        del pl_module
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PhotoDataModule) and data.stream is not None
        stream = data.stream

        def handler(_number: int, _frame: FrameType | None) -> None:
            stream.stop_requested = True

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, handler)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the earlier handlers back."""
        for number, earlier in self._previous.items():
            signal.signal(number, earlier)
        self._previous.clear()
