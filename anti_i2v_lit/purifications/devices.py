"""Where the networks of purifications run."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU; random numbers are drawn on the CPU either way."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
