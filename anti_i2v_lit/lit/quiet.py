"""What Lightning says that does not concern these runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ALWAYS = (
    ".*does not have many workers.*",
    ".*doesn't have.*__len__.*",
    # On a login node, and where a job has one task.
    "The `srun` command is available.*",
)


@contextmanager
def quiet_lightning(*further: str) -> Iterator[None]:
    """Hide tips, and warnings about data that is neither shuffled nor resumed by Lightning.

    Args:
        further: patterns of other warnings to hide.
    """
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (*_ALWAYS, *further):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            log.setLevel(level)
