"""What the exit code of a command means."""

from __future__ import annotations

from typing import Final

EXIT_DONE: Final = 0
"""All that was asked for is done."""
EXIT_USAGE: Final = 1
"""Nothing was begun: wrong words, settings or files; the message says which."""
EXIT_PROBLEMS: Final = 2
"""All was tried; some photos failed, were refused, or are not protected."""
EXIT_INTERRUPTED: Final = 3
"""Stopped on the way; the same command continues it."""
