"""Pillow's fixed limit on the size of pictures, lifted where our own limit was checked before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_LOCK = threading.Lock()
_LIFTED: list[int | None] = []  # the limit before, once for each that lifts it now


@contextmanager
def without_pixel_limit() -> Iterator[None]:
    """Lift the limit, which all threads share, until the last one that lifts it is done."""
    with _LOCK:
        _LIFTED.append(_LIFTED[0] if _LIFTED else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _LOCK:
            limit = _LIFTED.pop()
            if not _LIFTED:
                Image.MAX_IMAGE_PIXELS = limit
