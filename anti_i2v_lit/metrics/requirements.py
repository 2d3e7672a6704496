"""What a metric needs that the package does not carry: weights, packages, a GPU."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

DATA_VARIABLE = "ANTI_I2V_DATA"


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file or model folder that a metric reads.

    Attributes:
        name: its name in the folder of weights.
        how_to_get: sentences that lead to it.
    """

    name: str
    how_to_get: str

    def find(self, configured: str = "", folder: Path | None = None) -> Path | None:
        """Where it is, or None.

        Args:
            configured: path set by the user; it wins.
            folder: folder of weights; None means $ANTI_I2V_DATA/models.
        """
        if configured:
            path = Path(configured).expanduser()
        else:
            found = folder or _default_folder()
            if found is None:
                return None
            path = found / self.name
        return path if path.exists() else None

    def require(self, configured: str = "") -> Path:
        """Where it is.

        Raises:
            ValueError: it is not there; the message says how to get it.
        """
        path = self.find(configured)
        if path is None:
            raise ValueError(
                f"weights: expected {self.name}, got {configured!r}. {self.how_to_get}"
            )
        return path


@dataclass(frozen=True, kw_only=True)
class OptionalPackage:
    """A Python package that a metric imports and that a plain installation lacks.

    Attributes:
        name: import name.
        how_to_get: the command that installs it.
    """

    name: str
    how_to_get: str

    @property
    def is_here(self) -> bool:
        """Whether it can be imported; imports nothing."""
        return importlib.util.find_spec(self.name) is not None


@dataclass(frozen=True, kw_only=True)
class CudaDevice:
    """A GPU, for networks that run on nothing else.

    Attributes:
        name: what to call it.
        how_to_get: what to do without one.
    """

    name: str = "a CUDA device"
    how_to_get: str = "run it on a machine with a GPU, or leave the metric out"

    @property
    def is_here(self) -> bool:
        """Whether PyTorch sees one."""
        import torch

        return torch.cuda.is_available()


Requirement = WeightsFile | OptionalPackage | CudaDevice


def _default_folder() -> Path | None:
    data = os.environ.get(DATA_VARIABLE)
    return Path(data) / "models" if data else None
