"""`anti-i2v cloak PHOTOS... --out DIR [--config FILE] [section.field=value ...]`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from anti_i2v_lit.settings import Settings, load_settings
from anti_i2v_lit.slurm.parts import list_shards, part_of

OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_0-9]+)*=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTOS",
        help="files, folders (recursive), globs, or tar shards ('shards/p-{000000..000099}.tar', "
        "pipe:COMMAND, URLs); and overrides such as attack.steps=50",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the cloaks")
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    parser.add_argument(
        "--out-format",
        default="shards",
        choices=("shards", "folder"),
        help="how photos from shards are written: one shard per shard, or files",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="only the I-th (from 0) of N equal ranges of the shards, to share them among jobs",
    )
    add_weights(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option for a backbone that the package cannot ship."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="CLIP checkpoint for the objectives named clip_distance (LPIPS is packaged)",
    )


def settings_of(arguments: argparse.Namespace, overrides: list[str]) -> Settings:
    """The settings of a command line.

    Raises:
        ValueError: as `load_settings`; or `--weights` without a term that takes it.
    """
    settings = load_settings(arguments.config, overrides)
    if arguments.weights is None:
        return settings
    if not arguments.weights.is_file():
        raise ValueError(f"--weights: {arguments.weights} is not a file")
    places = [i for i, node in enumerate(settings.objectives) if node["name"] == "clip_distance"]
    if not places:
        raise ValueError("--weights: no objective is named clip_distance, so nothing would use it")
    found = [f"objectives.{place}.weights={arguments.weights}" for place in places]
    return load_settings(arguments.config, [*overrides, *found])


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Separate photos from `section.field=value` overrides; an existing file is a photo."""
    overrides = [w for w in words if OVERRIDE.match(w) and not Path(w).exists()]
    return [w for w in words if w not in overrides], overrides


def run(arguments: argparse.Namespace) -> int:
    """Cloak and report; returns the exit code."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from anti_i2v_lit.archive.status import status
    from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
    from anti_i2v_lit.lit.run import cloak

    photos, overrides = split_words(arguments.photos)
    whole: list[str] = []
    if arguments.part is not None:
        whole = list_shards(photos)
        photos = part_of(whole, arguments.part)
        if not photos:
            print(f"no shards fall into part {arguments.part}: nothing to do")
            return 0
    settings = settings_of(arguments, overrides)
    code = cloak(
        settings,
        photos=photos,
        out=arguments.out,
        out_format=arguments.out_format,
        part_of=whole,
    )
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return code
    if arguments.out.is_dir():
        print(status(arguments.out).render())
    if (arguments.out / "report.html").is_file():
        print(f"report: {arguments.out / 'report.html'}")
    if code == EXIT_INTERRUPTED:
        print("interrupted: run the same command again to continue", file=sys.stderr)
    return code
