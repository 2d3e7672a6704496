"""A synthetic corpus: tiny photos, and stand-ins for the cloaks that a short run leaves out."""

from __future__ import annotations

import datetime
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from anti_i2v_lit.archive.ledger import MANIFEST, Ledger
from anti_i2v_lit.archive.row import Row, encode_row
from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES
from anti_i2v_lit.data.shards.listing import ShardListing, list_shard
from anti_i2v_lit.data.shards.reading import FileShard
from anti_i2v_lit.tars import write_tar

SIZE = (32, 24)
"""Width and height of a photo, pixels."""
_PER_FOLDER = 1000
_QUALITY, _OTHER_QUALITY = 90, 80


def write_corpus(folder: Path, num_photos: int) -> None:
    """JPEG files of random smooth colours, a thousand per folder; those that are there stay."""
    for first in range(0, num_photos, _PER_FOLDER):
        part = folder / f"{first // _PER_FOLDER:04d}"
        if part.is_dir() and len(list(part.iterdir())) == min(_PER_FOLDER, num_photos - first):
            continue
        part.mkdir(parents=True, exist_ok=True)
        for number in range(first, min(first + _PER_FOLDER, num_photos)):
            few = np.random.default_rng(number).integers(40, 216, (3, 4, 3), dtype=np.uint8)
            picture = Image.fromarray(few).resize(SIZE, Image.Resampling.BICUBIC)
            (part / f"{number:07d}.jpg").write_bytes(_jpeg(picture, _QUALITY))


def fill_up(shards: list[Path], out: Path) -> int:
    """Write stand-ins for the cloaks of shards that have none: the photo, compressed again.

    Returns:
        How many photos got one.
    """
    known, filled = Ledger(out).rows(), 0
    for path in shards:
        if (out / path.name).exists():
            continue
        listing = list_shard(FileShard(str(path)), PHOTO_SUFFIXES)
        rows = [row for row in _rows(listing, out) if row.key not in known]
        with (out / MANIFEST).open("ab") as stream:
            stream.writelines(encode_row(row) for row in rows)
        filled += len(rows)
    return filled


def _rows(listing: ShardListing, out: Path) -> list[Row]:
    """Rows of a shard's stand-ins; writes the shard first."""
    rows: list[Row] = []

    def members() -> Iterator[tuple[str, bytes]]:
        for key, sample in listing.samples.items():
            photo, _ = sample.load()
            cloak = _jpeg(Image.open(io.BytesIO(photo)), _OTHER_QUALITY)
            rows.append(_row(key, listing, sample.photo.name, photo, cloak))
            yield sample.photo.name, cloak

    write_tar(out / f"{listing.shard.name}.tar", members())
    return rows


def _row(key: str, listing: ShardListing, name: str, photo: bytes, cloak: bytes) -> Row:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return Row(
        key=key,
        status="cloaked",
        source=f"{listing.shard.url}/{name}",
        source_sha256=hashlib.sha256(photo).hexdigest(),
        output=f"{listing.shard.name}.tar/{name}",
        output_sha256=hashlib.sha256(cloak).hexdigest(),
        surrogates=("free:",),
        steps=1,
        budget_8bit=16.0,
        seconds=0.01,
        loss_first=0.0,
        loss_last=-0.001,
        psnr=33.0,
        max_change_8bit=12.0,
        recorded=now,
    )


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
