"""`anti-i2v plan PHOTOS... --out DIR`: count, refuse and estimate; writes nothing."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from anti_i2v_lit.cli.cloak_verb import add_weights, settings_of, split_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="as for `cloak`")
    parser.add_argument("--out", required=True, type=Path, help="folder of the cloaks")
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    add_weights(parser)
    parser.add_argument(
        "--trial-steps", type=int, default=5, help="steps timed for the estimate; 0: no estimate"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; 2 if something would be refused."""
    from anti_i2v_lit.lit.planning import plan

    photos, overrides = split_words(arguments.photos)
    settings = settings_of(arguments, overrides)
    existing = next(p for p in (arguments.out, *arguments.out.resolve().parents) if p.exists())
    found = plan(
        settings,
        photos=photos,
        out=arguments.out,
        trial_steps=arguments.trial_steps,
        free_bytes=shutil.disk_usage(existing).free,
    )
    print(found.render())
    return 2 if found.refusals else 0
