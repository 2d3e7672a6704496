"""SIGINT and SIGTERM finish the step and stop; what was saved is continued by the next run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from anti_i2v_lit.lit.datamodule import GroupStream, PhotoDataModule
from anti_i2v_lit.lit.signal_handlers import SIGNALS, StopHandlers
from anti_i2v_lit.slurm.signals import REQUEST


@contextmanager
def interruptible() -> Iterator[None]:
    """Outside the training loop, SIGTERM interrupts as Ctrl-C does; restores all handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in SIGNALS}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        REQUEST.note(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        # Lightning leaves SIGINT ignored after an interrupt.
        for number, handler in earlier.items():
            signal.signal(number, handler)


class StopOnSignal(pl.Callback):
    """Installs handlers that only set a flag, after Lightning installed its own.

    Lightning's handler for SIGTERM raises in the middle of the run, and its requeueing would
    start from a checkpoint that this package does not use. SLURM's warning (SIGUSR1) has a handler
    from the program's first moment; the stream of photos looks at its flag.

    Args:
        lost: whether another run took over what this one held.
    """

    def __init__(self, lost: Callable[[], bool] = lambda: False) -> None:
        self._lost = lost
        self._handlers: StopHandlers | None = None
        self._parent = os.getppid()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers."""
        del pl_module
        stream = _stream_of(trainer)

        def note() -> None:
            stream.stop_requested = True

        self._handlers = StopHandlers(note)
        self._handlers.install(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """A rank whose starter was killed stops, and a run whose photos others took over."""
        orphaned = not trainer.is_global_zero and os.getppid() != self._parent
        if orphaned or self._lost():
            _stream_of(trainer).stop_requested = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the earlier handlers back."""
        assert self._handlers is not None, "the training has started"
        self._handlers.restore()


def _stream_of(trainer: pl.Trainer) -> GroupStream:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, PhotoDataModule) and data.stream is not None
    return data.stream
