"""`anti-i2v shard SOURCE... --kind KIND --out DIR [--config FILE] [field=value ...]`."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from anti_i2v_lit.slurm.signals import REQUEST

_OVERRIDE = re.compile(r"^[a-z_0-9]+=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from anti_i2v_lit.data.shards import SAMPLE_SOURCES

    parser.add_argument(
        "photos",
        nargs="+",
        metavar="SOURCE",
        help="folders of the data set; and settings such as samples_per_shard=500 num_frames=4",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the shards")
    parser.add_argument(
        "--kind", choices=SAMPLE_SOURCES.names(), help="what the sources are; default: photos"
    )
    parser.add_argument("--config", type=Path, help="YAML file with kind and settings")
    parser.add_argument(
        "--range", metavar="START:STOP", help="make only these shards, to share them among jobs"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the shards; 2 if some files gave no sample."""
    from anti_i2v_lit.config import parse_config
    from anti_i2v_lit.data.shards import SAMPLE_SOURCES
    from anti_i2v_lit.data.shards.building import BuildConfig, ShardEntry, build_shards

    words = [w for w in arguments.photos if not _is_override(w)]
    if not words:
        raise ValueError("no sources given: name the folders of the data set")
    kind, fields = _settings(arguments)
    own = {f.name for f in dataclasses.fields(BuildConfig)}
    building = parse_config(BuildConfig, {k: v for k, v in fields.items() if k in own}, "shard")
    source = SAMPLE_SOURCES.build(
        {"name": kind, **{k: v for k, v in fields.items() if k not in own}}
    )
    settings = {"kind": kind, **dataclasses.asdict(building), **dataclasses.asdict(source.config)}

    def show(entry: ShardEntry, total: int) -> None:
        skipped = f", {len(entry.skipped)} skipped" if entry.skipped else ""
        print(f"{entry.name} of {total}: {entry.samples} samples{skipped}", flush=True)
        for name, reason in list(entry.skipped.items())[:20]:
            print(f"  {name}: {reason}", file=sys.stderr)

    with REQUEST.interrupting():  # the shard that is being made is made again
        found = build_shards(
            source,
            [Path(word) for word in words],
            arguments.out,
            building,
            settings=settings,
            shard_range=_range(arguments.range),
            on_shard=show,
        )
    skipped = sum(len(entry.skipped) for entry in found.shards)
    samples = sum(entry.samples for entry in found.shards)
    print(
        f"{samples} samples in {len(found.shards)} shards ({found.found_ready} were there), "
        f"{skipped} files skipped; index "
        + ("written" if found.index_written else "follows when all shards are there")
    )
    return 2 if skipped else 0


def _is_override(word: str) -> bool:
    return bool(_OVERRIDE.match(word)) and not Path(word).exists()


def _settings(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The kind and its fields: the YAML file, then the command line."""
    import yaml

    fields: dict[str, Any] = {}
    if arguments.config is not None:
        try:
            given = yaml.safe_load(arguments.config.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"--config: {arguments.config} is not YAML: {error}") from error
        if not isinstance(given, dict):
            raise ValueError(f"--config: {arguments.config} must hold fields with values")
        fields.update(given)
    for word in filter(_is_override, arguments.photos):
        name, _, text = word.partition("=")
        fields[name] = yaml.safe_load(text)
    kind = str(fields.pop("kind", "photos"))
    return arguments.kind or kind, fields


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdigit() and stop.isdigit()):
        raise ValueError(f"--range: expected START:STOP such as 0:10, got {text!r}")
    return int(start), int(stop)
