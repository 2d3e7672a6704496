"""Handlers of SIGINT and SIGTERM that only note the wish to stop, while Lightning's loop runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from anti_i2v_lit.slurm.signals import REQUEST

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopHandlers:
    """Take the place of Lightning's own handlers, which would raise amid the work.

    Args:
        note: called in the handler; sets a flag and does nothing else.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note
        self._previous: dict[signal.Signals, Any] = {}

    def install(self, trainer: pl.Trainer) -> None:
        """Install them, after Lightning's (Python allows that in the main thread only)."""
        launcher = trainer.strategy.launcher

        def handler(number: int, _frame: FrameType | None) -> None:
            self._note()
            if number == signal.SIGTERM:
                REQUEST.note(number)
            if isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(number)  # sends this signal to the ranks that rank 0 started

        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, handler)

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for number, earlier in self._previous.items():
            signal.signal(number, earlier)
        self._previous.clear()
