"""`anti-i2v bench`: speed and memory as ratios to a plain loop in the same process."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

PARTS = ("speed", "memory", "bookkeeping", "scan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "overrides", nargs="*", metavar="section.field=value", help="settings of the attack"
    )
    parser.add_argument("--steps", type=int, default=50, help="sign steps per photo")
    parser.add_argument("--photos", type=int, default=4, dest="num_photos", help="photos")
    parser.add_argument("--batch-size", type=int, default=4, help="photos in flight at once")
    parser.add_argument("--rows", type=int, default=100_000, help="photos of the scanned archive")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="what to measure, names separated by commas"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print the table."""
    from anti_i2v_lit.bench import report
    from anti_i2v_lit.bench.bookkeeping import measure_bookkeeping, measure_scan
    from anti_i2v_lit.bench.memory import measure_memory
    from anti_i2v_lit.bench.speed import measure_speed
    from anti_i2v_lit.checks import check_in
    from anti_i2v_lit.settings import Settings, load_settings

    parts = arguments.parts.split(",")
    for part in parts:
        check_in(part, PARTS, "part of the benchmark")

    def settings_for(batch_size: int) -> Settings:
        amount = [f"attack.steps={arguments.steps}", f"attack.batch_size={batch_size}"]
        # The gate would repeat photos; what a photo costs is measured on one attempt.
        return load_settings(overrides=[*arguments.overrides, *amount, "gate.max_attempts=1"])

    settings = settings_for(arguments.batch_size)
    print(report.heading(settings, arguments.num_photos) + "\n", flush=True)
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="anti-i2v-bench-") as name:
        folder = Path(name)
        for part in parts:
            print(f"measuring {part}", file=sys.stderr, flush=True)
            if part == "speed":
                rows += report.speed_rows(measure_speed(settings, arguments.num_photos))
            elif part == "memory":
                rows += report.memory_rows(measure_memory(settings))
            elif part == "bookkeeping":
                alone = settings_for(1)
                found = measure_bookkeeping(alone, arguments.num_photos, folder / "bookkeeping")
                rows += report.bookkeeping_rows(found)
            else:
                rows += report.scan_rows(measure_scan(arguments.rows, folder / "scan"))
    print(report.table(rows))
    return 0
