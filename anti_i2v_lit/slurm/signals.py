"""SLURM's warning before a job must end: a handler that sets a flag and does nothing else.

Work inside a handler (collectives, imports, checkpoints) deadlocks or is lost, depending on the
moment. The flag is looked at between two optimisation steps. Work that never looks, and that may
end anywhere, is interrupted instead (`StopRequest.interrupting`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WARNING = signal.SIGUSR1


class StopRequest:
    """Remembers the first signal that asked this process to stop."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._listens = False
        self._interrupts = False

    def install(self) -> None:
        """Listen for the warning and for SIGTERM; called before anything slow is imported.

        Without a handler the warning would kill Python. Only the main thread may do this.
        """
        self._listens = True
        if threading.current_thread() is threading.main_thread():
            for number in (WARNING, signal.SIGTERM):
                signal.signal(number, self._remember)

    def note(self, number: int) -> None:
        """Remember a signal that another handler has caught; only in a program that listens."""
        if self._listens:
            self.received = self.received or number

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within it, a signal that came or comes interrupts as Ctrl-C does.

        For work that is right wherever it ends, since its files are whole or absent.

        Raises:
            KeyboardInterrupt: this process was asked to stop.
        """
        self._interrupts = True
        try:
            if self.received is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.note(number)
        if self._interrupts:
            self._interrupts = False  # once: nothing disturbs the way out
            raise KeyboardInterrupt


REQUEST = StopRequest()
