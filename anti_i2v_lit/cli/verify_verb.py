"""`anti-i2v verify DIR`: do the files, the manifest and the originals agree?"""

from __future__ import annotations

import argparse
from pathlib import Path

from anti_i2v_lit.slurm.signals import REQUEST


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of a run")
    parser.add_argument("--workers", type=int, default=4, help="files read at once")


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; 2 if there is any."""
    from anti_i2v_lit.archive.ledger import Ledger
    from anti_i2v_lit.archive.verify import verify

    with REQUEST.interrupting():  # it only reads
        findings = verify(arguments.folder, workers=arguments.workers)
    for finding in findings:
        print(finding)
    rows = Ledger(arguments.folder).rows().values()
    cloaked = sum(row.status == "cloaked" for row in rows)
    print(f"{cloaked} cloaked photos checked, {len(findings)} findings")
    if cloaked < len(rows):
        print(f"{len(rows) - cloaked} photos have no cloak: see `anti-i2v status`")
    return 2 if findings else 0
