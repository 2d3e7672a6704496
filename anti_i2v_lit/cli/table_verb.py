"""`anti-i2v table NAME --photos DIR --out DIR`: make the tables of the docs again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "table",
        choices=("protection", "ablation", "transfer"),
        help="protection: noise, RGB-PGD, parts of the method and all of it, on held-out photos; "
        "ablation: many settings, on training photos, best first; transfer: cloaks against one "
        "model, the other, and both, judged by each",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.field=value", help="settings of all rows"
    )
    parser.add_argument("--photos", required=True, type=Path, help="folder of clean photos")
    parser.add_argument("--out", required=True, type=Path, help="folder of results and table")
    parser.add_argument("--list", type=Path, help="rows; default configs/evaluate/TABLE.yaml")
    parser.add_argument("--count", type=int, default=10, help="photos, evenly spaced; 0: all")
    parser.add_argument(
        "--sampling-steps", type=int, default=15, help="denoising steps per clip; 0: the model's"
    )
    parser.add_argument("--seeds", type=int, default=1, help="clips per photo")
    parser.add_argument("--batch-size", type=int, default=4, help="clips made together")
    parser.add_argument(
        "--purify",
        default="none,platform",
        help="what happens to a file first: purifications separated by commas, none for nothing",
    )
    parser.add_argument(
        "--weights", type=Path, help="folder of face networks and TAEF2; absent ones are left out"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the table; 3 if it was interrupted."""
    from anti_i2v_lit.bench.plan import CONFIGS, Interrupted, read_plan
    from anti_i2v_lit.bench.tables import TableOptions, make_table

    plan = read_plan(arguments.list or CONFIGS / f"{arguments.table}.yaml")
    options = TableOptions(
        count=arguments.count,
        sampling_steps=arguments.sampling_steps,
        num_seeds=arguments.seeds,
        batch_size=arguments.batch_size,
        purifications=arguments.purify.split(","),
        weights=arguments.weights,
    )
    try:
        path = make_table(
            plan,
            photos=arguments.photos,
            out=arguments.out,
            overrides=arguments.overrides,
            options=options,
            listener=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except (Interrupted, KeyboardInterrupt):
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 3
    print(path.read_text(encoding="utf-8"))
    print(f"written: {path} and {path.with_suffix('.csv')}")
    return 0
