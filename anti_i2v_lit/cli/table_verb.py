"""`anti-i2v table NAME --photos DIR --out DIR`: make the tables of the docs again."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import yaml

from anti_i2v_lit.bench.lists import list_names, list_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "table",
        choices=list_names(),
        help="main: published protections at equal budget; ladder: what each part adds; budget, "
        "num_steps, step_size: sweeps; robustness: after every purification; transfer: cloaks "
        "against one model, the other, and both; trained: what drawing purifications in the loop "
        "gains after others; protection: one model beside RGB-PGD; defaults, "
        "ablation: searches, on training photos",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.field=value", help="settings of all rows"
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--photos", type=Path, help="folder of clean photos")
    given.add_argument(
        "--clips",
        type=Path,
        nargs="+",
        help="videos, or folders of them, whose first frames are the photos (kept beside --out)",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of results and table")
    parser.add_argument("--list", type=Path, help="rows of your own; default: the packaged TABLE")
    parser.add_argument(
        "--generator",
        action="append",
        metavar="NAME:PATH[,FIELD=VALUE...]",
        help="attacker's model in place of the list's, e.g. dynamicrafter:embedded; repeatable",
    )
    parser.add_argument("--count", type=int, default=10, help="photos, evenly spaced; 0: all")
    parser.add_argument(
        "--sampling-steps", type=int, default=15, help="denoising steps per clip; 0: the model's"
    )
    parser.add_argument("--seeds", type=int, default=1, help="clips per photo")
    parser.add_argument("--batch-size", type=int, default=4, help="clips made together")
    parser.add_argument(
        "--purify",
        default="",
        help="what happens to a file first: purifications, gauntlets and labels of their rows "
        "separated by commas, none for nothing; default: the list's",
    )
    parser.add_argument(
        "--weights", type=Path, help="folder of face networks and TAEF2; absent ones are left out"
    )
    parser.add_argument("--docs", type=Path, help="also write the brief here, as FILE.md and .csv")
    parser.add_argument("--dry-run", action="store_true", help="say how much work it is, and stop")


def run(arguments: argparse.Namespace) -> int:
    """Make the table; 3 if it was interrupted."""
    from anti_i2v_lit.bench.first_frames import write_first_frames
    from anti_i2v_lit.bench.plan import Interrupted, read_plan
    from anti_i2v_lit.bench.table_pages import publish
    from anti_i2v_lit.bench.tables import TableOptions, amount_of, make_table

    plan = read_plan(arguments.list or list_path(arguments.table))
    if arguments.generator:
        plan = dataclasses.replace(plan, generators=_generators(arguments.generator))
    photos = arguments.photos
    if photos is None:
        beside = arguments.out.with_name(f"{arguments.out.name}-first-frames")
        photos = write_first_frames(arguments.clips, beside)
    wanted: dict[str, Any] = {
        "photos": photos,
        "out": arguments.out,
        "overrides": arguments.overrides,
        "options": TableOptions(
            count=arguments.count,
            sampling_steps=arguments.sampling_steps,
            num_seeds=arguments.seeds,
            batch_size=arguments.batch_size,
            purifications=[name for name in arguments.purify.split(",") if name],
            weights=arguments.weights,
        ),
    }
    if arguments.dry_run:
        amount = amount_of(plan, **wanted)
        print(
            f"{arguments.table}: {len(plan.rows)} rows; photo-steps {amount.photo_steps_left} of "
            f"{amount.photo_steps}, clips {amount.clips_left} of {amount.clips} still to do "
            "(more if files, models or this program changed since)"
        )
        return 0
    try:
        path = make_table(
            plan, **wanted, listener=lambda text: print(text, file=sys.stderr, flush=True)
        )
    except (Interrupted, KeyboardInterrupt):
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 3
    print(path.read_text(encoding="utf-8"))
    print(f"written: {path} and {path.with_suffix('.csv')}")
    if arguments.docs:
        publish(arguments.out, arguments.docs)
        print(f"written: {arguments.docs} and {arguments.docs.with_suffix('.csv')}")
    return 0


def _generators(given: list[str]) -> dict[str, dict[str, Any]]:
    """Label -> node of `NAME:PATH,FIELD=VALUE` words; a name that comes again is numbered."""
    found: dict[str, dict[str, Any]] = {}
    for word in given:
        model, *fields = word.split(",")
        name, _, path = model.partition(":")
        pairs = [field.partition("=") for field in fields]
        if not name or not path or not all(equals for _, equals, _ in pairs):
            raise ValueError(f"--generator: expected NAME:PATH[,FIELD=VALUE...], got {word!r}")
        label = name if name not in found else f"{name}{len(found) + 1}"
        values = {field: yaml.safe_load(value) for field, _, value in pairs}
        found[label] = {"name": name, "path": path, **values}
    return found
