"""`anti-i2v cloak PHOTOS... --out DIR [--config FILE] [section.field=value ...]`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_0-9]+)*=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTOS",
        help="files, folders (recursive) or globs; and overrides such as attack.steps=50",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the cloaks")
    parser.add_argument("--config", type=Path, help="YAML file with settings")


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Separate photos from `section.field=value` overrides; an existing file is a photo."""
    overrides = [w for w in words if OVERRIDE.match(w) and not Path(w).exists()]
    return [w for w in words if w not in overrides], overrides


def run(arguments: argparse.Namespace) -> int:
    """Cloak and report; returns the exit code."""
    from anti_i2v_lit.archive.status import status
    from anti_i2v_lit.lit.run import EXIT_INTERRUPTED, cloak
    from anti_i2v_lit.settings import load_settings

    photos, overrides = split_words(arguments.photos)
    settings = load_settings(arguments.config, overrides)
    code = cloak(settings, photos=photos, out=arguments.out)
    print(status(arguments.out).render())
    print(f"report: {arguments.out / 'report.html'}")
    if code == EXIT_INTERRUPTED:
        print("interrupted: run the same command again to continue", file=sys.stderr)
    return code
