"""Cloak photos against image-to-video deepfakes.

The public names below are imported on first use, so that `import anti_i2v_lit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CloakModule": "anti_i2v_lit.lit.cloak_module",
    "CloakWriter": "anti_i2v_lit.lit.writer",
    "PhotoDataModule": "anti_i2v_lit.lit.datamodule",
    "PhotoParallelStrategy": "anti_i2v_lit.lit.strategy",
    "Settings": "anti_i2v_lit.settings",
    "cloak": "anti_i2v_lit.lit.run",
    "load_settings": "anti_i2v_lit.settings",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
