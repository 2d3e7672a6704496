"""`anti-i2v status DIR`: how far a folder of cloaks is; works while a run writes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of a run")


def run(arguments: argparse.Namespace) -> int:
    """Print the status; always 0 for a readable folder."""
    from anti_i2v_lit.archive.status import status

    print(status(arguments.folder).render())
    return 0
