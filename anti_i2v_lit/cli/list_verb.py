"""`anti-i2v list [SEAM]`: the registered names with one line each."""

from __future__ import annotations

import argparse
from typing import Any

SEAMS = ("surrogates", "spaces", "objectives", "purifications", "generators", "metrics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("seam", nargs="?", choices=SEAMS, help="one seam; default: all")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    for seam in [arguments.seam] if arguments.seam else SEAMS:
        print(seam)
        for name, line in _table(seam).describe().items():
            print(f"  {name:<16} {line}")
    return 0


def _table(seam: str) -> Any:
    import importlib

    module = importlib.import_module(f"anti_i2v_lit.{seam}")
    return getattr(module, seam.upper())
