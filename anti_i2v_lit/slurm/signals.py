"""SLURM's warning before a job must end: a handler that sets a flag and does nothing else.

Work inside a handler (collectives, imports, checkpoints) deadlocks or is lost, depending on the
moment. The flag is looked at between two optimisation steps.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

WARNING = signal.SIGUSR1


class StopRequest:
    """Remembers the first signal that asked this process to stop."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._listens = False

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

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.note(number)


REQUEST = StopRequest()
