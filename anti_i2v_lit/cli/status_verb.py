"""`anti-i2v status DIR`: how far a folder of cloaks is; works while runs write."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of a run")
    parser.add_argument(
        "--require",
        choices=("complete",),
        help="exit with 2 unless every photo has its row (for scripts that go on from here)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the status; 2 if something was required and is not so."""
    from anti_i2v_lit.archive.status import status

    found = status(arguments.folder)
    print(found.render())
    if arguments.require is None or found.complete:
        return 0
    print(f"{arguments.folder} is not complete", file=sys.stderr)
    return 2
