"""Randomness as a function of (seed, photo key, step, purpose), never of batch, rank or order."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, key: str, step: int, purpose: str) -> int:
    """Return a 63-bit seed that depends on all four arguments and on nothing else."""
    text = f"{seed}\x00{key}\x00{step}\x00{purpose}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator_for(seed: int, key: str, step: int, purpose: str) -> torch.Generator:
    """Return a CPU generator for one purpose at one step of one photo.

    Draw on the CPU and move the result, so that every device sees the same numbers.
    """
    return torch.Generator().manual_seed(derived_seed(seed, key, step, purpose))
