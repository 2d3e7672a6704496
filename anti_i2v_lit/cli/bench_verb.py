"""`anti-i2v bench`: speed and memory beside a plain loop; full models with random weights."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anti_i2v_lit.bench.count import Count
    from anti_i2v_lit.bench.published.base import Size
    from anti_i2v_lit.settings import Settings
    from anti_i2v_lit.surrogates.base import Surrogate

PARTS = ("speed", "memory", "bookkeeping", "scan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "overrides", nargs="*", metavar="section.field=value", help="settings of the attack"
    )
    parser.add_argument("--steps", type=int, help="sign steps per photo; with --surrogate: timed")
    parser.add_argument("--photos", type=int, default=4, dest="num_photos", help="photos")
    parser.add_argument("--batch-size", type=int, default=4, help="photos in flight at once")
    parser.add_argument("--rows", type=int, default=100_000, help="photos of the scanned archive")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="what to measure, names separated by commas"
    )

    model = parser.add_argument_group("one model")
    model.add_argument(
        "--surrogate",
        metavar="NAME",
        help="a published model (with --random-weights or --count), or a surrogate of "
        "`anti-i2v list` whose settings are given as surrogates.0.field=value",
    )
    model.add_argument(
        "--random-weights", action="store_true", help="the full published size, no checkpoint"
    )
    model.add_argument(
        "--count",
        action="store_true",
        help="count memory and operations of a step from shapes alone; runs nothing",
    )
    model.add_argument("--height", type=int, default=0, help="of the views, pixels")
    model.add_argument("--width", type=int, default=0, help="of the views, pixels")
    model.add_argument("--num-frames", type=int, default=0, help="of the clip, video frames")
    model.add_argument("--num-blocks", type=int, default=0, help="of a transformer, to try it out")
    model.add_argument("--dtype", default="bfloat16", help="bfloat16 or float32")
    model.add_argument("--device", default="", help="cpu or cuda; default: cuda if there is one")
    model.add_argument(
        "--no-recompute", action="store_true", help="store activations instead of recomputing them"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print the table."""
    if arguments.surrogate or arguments.random_weights or arguments.count:
        return _run_model(arguments)
    from anti_i2v_lit.bench import report
    from anti_i2v_lit.bench.bookkeeping import measure_bookkeeping, measure_scan
    from anti_i2v_lit.bench.memory import measure_memory
    from anti_i2v_lit.bench.speed import measure_speed
    from anti_i2v_lit.checks import check_in
    from anti_i2v_lit.settings import load_settings

    parts = arguments.parts.split(",")
    for part in parts:
        check_in(part, PARTS, "part of the benchmark")

    def settings_for(batch_size: int) -> Settings:
        amount = [f"attack.steps={arguments.steps or 50}", f"attack.batch_size={batch_size}"]
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


def _run_model(arguments: argparse.Namespace) -> int:
    """Measure or count one model."""
    import torch

    from anti_i2v_lit.bench import report
    from anti_i2v_lit.bench.model_speed import measure_model
    from anti_i2v_lit.settings import load_settings

    if not arguments.surrogate:
        raise ValueError("--random-weights and --count need --surrogate NAME")
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = f"trainer.accelerator={'cpu' if device == 'cpu' else 'gpu'}"
    named = not (arguments.random_weights or arguments.count)
    settings = load_settings(
        values={"surrogates": [{"name": arguments.surrogate}]} if named else None,
        overrides=[*arguments.overrides, place],
    )
    if arguments.count:
        print("\n".join(report.count_rows(arguments.surrogate, _count(arguments, settings))))
        return 0
    surrogate = _surrogate(arguments, settings, device)
    print(report.heading(settings, 1).split("\n")[0])
    height, width = surrogate.view_size
    print(f"{arguments.surrogate}: {height} x {width} px, {surrogate.num_frames} frames\n")
    speed = measure_model(settings, surrogate, steps=arguments.steps or 5)
    print(report.table(report.model_rows(speed)))
    return 0


def _surrogate(arguments: argparse.Namespace, settings: Settings, device: str) -> Surrogate:
    from anti_i2v_lit.bench.published import random_surrogate
    from anti_i2v_lit.cloaking.build import load_surrogate

    if arguments.random_weights:
        return random_surrogate(arguments.surrogate, _size(arguments, device))
    return load_surrogate(settings.surrogates[0], device)


def _count(arguments: argparse.Namespace, settings: Settings) -> Count:
    from anti_i2v_lit.bench.count import count_step
    from anti_i2v_lit.bench.published import random_surrogate
    from anti_i2v_lit.cloaking.build import build_objectives

    return count_step(
        random_surrogate(arguments.surrogate, _size(arguments, "meta")),
        list(build_objectives(settings.objectives, "meta").values()),
        num_draws=settings.attack.num_draws,
        encoder_first=settings.attack.encoder_first,
    )


def _size(arguments: argparse.Namespace, device: str) -> Size:
    from anti_i2v_lit.bench.published.base import Size
    from anti_i2v_lit.checkpoints import torch_dtype

    return Size(
        dtype=torch_dtype(arguments.dtype),
        device=device,
        height=arguments.height,
        width=arguments.width,
        num_frames=arguments.num_frames,
        num_blocks=arguments.num_blocks,
        activation_checkpointing=not arguments.no_recompute,
    )
