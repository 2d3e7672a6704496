"""A rank that is gone, as the others notice it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_SIGNS = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "NCCL", "gloo")


class PeerLost(RuntimeError):
    """Another rank is gone; what this one saved is continued by the next run."""


def lost(error: RuntimeError) -> RuntimeError:
    """`PeerLost` for what a process group raises when a rank is gone; anything else as it is."""
    if isinstance(error, PeerLost) or not any(sign in str(error) for sign in _SIGNS):
        return error
    detail = str(error).splitlines()[0]
    return PeerLost(f"another rank of this run is gone or no longer answers ({detail})")


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Around a collective call and nothing else.

    Raises:
        PeerLost: in place of what the process group raises when a rank is gone.
    """
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from error
