"""The wording of every range and shape error, in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch
from torch import Tensor


class PhotoFailure(ValueError):
    """A photo cannot be cloaked; the message is the reason written to the manifest."""


class NonFiniteLoss(PhotoFailure):
    """A loss or gradient became NaN or infinite; names the photos, the term and the step.

    Args:
        message: what became non-finite, where, and what to do.
        keys: the photos that it concerns; the others of the batch can go on.
    """

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


def check_photos(photos: Tensor, name: str = "photos") -> None:
    """Refuse anything but float32 [B, 3, H, W] in [0, 1].

    Raises:
        ValueError: with what arrived and what was expected.
    """
    if photos.ndim != 4 or photos.shape[1] != 3:
        raise ValueError(f"{name}: expected shape [B, 3, H, W], got {tuple(photos.shape)}")
    if photos.dtype != torch.float32:
        raise ValueError(f"{name}: expected float32, got {photos.dtype}; convert with .float()")
    low, high = photos.detach().aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{name}: expected values in [0, 1], got [{low.item():g}, {high.item():g}]; "
            "divide 8-bit pixels by 255"
        )


def check_in(value: str, known: Iterable[str], what: str) -> None:
    """Refuse a name that is not in `known`, with the nearest known name.

    Raises:
        ValueError: "unknown WHAT 'x'. Did you mean 'y'? Known: ...".
    """
    names = sorted(known)
    if value not in names:
        raise ValueError(
            f"unknown {what} {value!r}.{did_you_mean(value, names)} Known: {', '.join(names)}"
        )


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'y'?" or an empty string."""
    close = difflib.get_close_matches(value, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_at_least(value: float, low: float, field: str) -> None:
    """Refuse a number below `low`.

    Raises:
        ValueError: naming the field, the value and the bound.
    """
    if not value >= low:
        raise ValueError(f"{field} must be at least {low:g}, got {value:g}")


def check_between(value: float, low: float, high: float, field: str) -> None:
    """Refuse a number outside [low, high].

    Raises:
        ValueError: naming the field, the value and the bounds.
    """
    if not low <= value <= high:
        raise ValueError(f"{field} must be between {low:g} and {high:g}, got {value:g}")


def check_share(value: float, field: str) -> None:
    """Refuse a share outside (0, 1].

    Raises:
        ValueError: naming the field, the value and the bounds.
    """
    if not 0 < value <= 1:
        raise ValueError(f"{field} must be above 0 and at most 1, got {value:g}")
