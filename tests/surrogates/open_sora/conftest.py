"""Numbers computed with the published implementation, and the manifests of its checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Parity:
    """One folder of published numbers."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    numbers: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.numbers[name]


def parity_of(data: Path, name: str) -> Parity:
    folder = data / "parity" / name
    if not folder.is_dir():
        pytest.skip(f"no published numbers in {folder}")
    config = json.loads((folder / "config.json").read_text())["config"]
    weights, numbers = (load_file(folder / f"{part}.safetensors") for part in ("weights", "io"))
    return Parity(config, weights, numbers)


def manifest_of(data: Path, name: str) -> dict[str, list[int]]:
    path = data / "parity" / "manifests" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no manifest {path}")
    return json.loads(path.read_text())["shapes"]


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-4 of the largest number, which must not be zero."""
    scale = expected.abs().max().item()
    assert scale > 0 and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale)
