"""`anti-i2v layers SURROGATE`: choose taps for a model by what its blocks see."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("surrogate", metavar="SURROGATE", help="a name out of `anti-i2v list`")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.field=value",
        help="settings, such as surrogates.0.path=FOLDER",
    )
    parser.add_argument(
        "--photos", type=Path, help="folder of portraits, one per person; default: one portrait"
    )
    parser.add_argument("--out", type=Path, default=Path("layers"), help="folder of the results")
    parser.add_argument("--count", type=int, default=32, help="photos, evenly spaced; 0: all")
    parser.add_argument("--views", type=int, default=4, help="shifted, mirrored views per photo")
    parser.add_argument(
        "--timesteps",
        default="0.1,0.35,0.6,0.85",
        help="shares of the training schedule, separated by commas",
    )
    parser.add_argument("--noises", type=int, default=2, help="noises per timestep")


def run(arguments: argparse.Namespace) -> int:
    """Measure, write, and print the table."""
    from anti_i2v_lit.bench.layer_report import report_layers
    from anti_i2v_lit.evaluation.layers import LayersConfig
    from anti_i2v_lit.settings import load_settings

    settings = load_settings(
        values={"surrogates": [{"name": arguments.surrogate}]}, overrides=arguments.overrides
    )
    try:
        shares = [float(word) for word in arguments.timesteps.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--timesteps: expected shares such as 0.1,0.5, got {arguments.timesteps!r}"
        ) from error
    config = LayersConfig(
        views=arguments.views,
        timestep_shares=shares,
        num_noises=arguments.noises,
        prompt=settings.attack.prompt,
        seed=settings.seed,
    )
    report = report_layers(
        settings,
        config,
        photos=arguments.photos,
        count=arguments.count,
        out=arguments.out,
        listener=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(report.text)
    print(f"\nwritten: {report.picture}, {report.results}, {report.settings}")
    return 0
