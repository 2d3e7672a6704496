"""Writing shards back: when every sample of a shard has its row, the waiting cloaks become a tar.

A cloak is durable before that: it waits as a file, so that a killed run goes on in the middle of
a shard.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from anti_i2v_lit.archive.files import write_whole
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.lock import try_lock
from anti_i2v_lit.archive.outputs import (
    SHARD_SUFFIX,
    OutputsThere,
    open_output,
    shard_stage,
)
from anti_i2v_lit.archive.row import Row, encode_row
from anti_i2v_lit.checks import PhotoFailure, check_in
from anti_i2v_lit.data.shards.listing import ShardListing
from anti_i2v_lit.data.writing import permissions_like
from anti_i2v_lit.tars import write_tar

OUT_FORMATS = ("shards", "folder")
# What differs between two runs that made the same cloaks.
_NOT_IN_SHARDS = ("recorded", "seconds", "source_mtime_ns")


def check_out_format(out_format: str) -> None:
    """Refuse an unknown `--out-format`.

    Raises:
        ValueError: with the known ones.
    """
    check_in(out_format, OUT_FORMATS, "--out-format")


def stage_caption(out: Path, key: str, caption: str) -> None:
    """Keep a sample's caption beside its waiting cloak.

    Raises:
        PhotoFailure: it cannot be written.
    """
    if not caption:
        return
    name = f"{sample_name(key)}.txt"
    try:
        write_whole(shard_stage(out) / name, caption.encode())
    except OSError as error:
        raise PhotoFailure(f"cannot write {name}: {error}") from error


def sample_name(key: str) -> str:
    """A photo's key without its extensions, which start at the first dot of its last part."""
    return re.sub(r"\.[^/]*$", "", key)


class ShardWriter:
    """Makes the output shards of a run, each as soon as it is whole.

    Args:
        out: folder of the cloaks.
        listings: the input shards.
        ledger: the ledger of `out`.
    """

    def __init__(self, out: Path, listings: Sequence[ShardListing], ledger: Ledger) -> None:
        self._out, self._ledger = out, ledger
        self._listings = {listing.shard.name: listing for listing in listings}
        self._mine: dict[str, set[str]] = {}

    def expect(self, groups: Sequence[tuple[str, ...]]) -> None:
        """Note the groups of this rank."""
        for group in groups:
            for key in group:
                self._mine.setdefault(_home(key), set()).add(key)

    def passed(self, keys: Sequence[str]) -> None:
        """A group is done; writes its shard if that was the last one, on any rank."""
        for name in {_home(key) for key in keys} & self._listings.keys():
            left = self._mine.get(name, set())
            left.difference_update(keys)
            if not left:
                self._write_if_whole(self._listings[name], self._ledger.rows())

    def write_whole_shards(self) -> None:
        """Write every shard that is whole and not written yet."""
        rows = self._ledger.rows() if self._listings else {}
        for listing in self._listings.values():
            self._write_if_whole(listing, rows)

    def _write_if_whole(self, listing: ShardListing, rows: Mapping[str, Row]) -> None:
        if any(key not in rows for key in (*listing.keys, *listing.broken)):
            return
        stage = shard_stage(self._out) / listing.shard.name
        tar = self._out / (listing.shard.name + SHARD_SUFFIX)
        with _only_one(stage) as alone:
            if not alone or (tar.exists() and not stage.exists()):
                return
            cloaks = [r.output for k in listing.keys if (r := rows[k]).status == "cloaked"]
            captions = {key: _caption(listing.shard.name, key) for key in listing.keys}
            there = OutputsThere(self._out)
            lost = [output for output in cloaks if output not in there]
            if lost:
                warnings.warn(
                    f"{tar.name} is not written: the cloak {lost[0]} is gone; run again to make it",
                    stacklevel=2,
                )
                return
            kept = {key: caption for key, caption in captions.items() if caption in there}
            like = permissions_like(Path(listing.shard.url))
            write_tar(tar, self._members(listing, rows, kept), like)
            shutil.rmtree(stage, ignore_errors=True)

    def _members(
        self, listing: ShardListing, rows: Mapping[str, Row], captions: Mapping[str, str]
    ) -> Iterator[tuple[str, bytes]]:
        """Photo, row and caption of each sample, in the order of the input shard."""
        for key in listing.keys:
            row, name = rows[key], sample_name(key.partition("/")[2])
            if row.status == "cloaked":
                with open_output(self._out, row.output) as stream:
                    yield row.output.partition("/")[2], stream.read()
            facts = json.loads(encode_row(row))
            kept = {k: v for k, v in facts.items() if k not in _NOT_IN_SHARDS}
            yield f"{name}.json", json.dumps(kept).encode()
            if key in captions:
                with open_output(self._out, captions[key]) as stream:
                    yield f"{name}.txt", stream.read()


def _caption(shard: str, key: str) -> str:
    """Where a sample's caption lies, as an output."""
    return f"{shard}{SHARD_SUFFIX}/{sample_name(key.partition('/')[2])}.txt"


def _home(key: str) -> str:
    return key.partition("/")[0]


@contextmanager
def _only_one(stage: Path) -> Iterator[bool]:
    """Whether this process alone may write the shard now."""
    stage.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(stage.with_name(stage.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)
