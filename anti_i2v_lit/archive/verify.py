"""After a run: is every cloak still what the manifest says, and none of them an original?"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pillow_heif
from PIL import Image

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.outputs import SHARD_SUFFIX, locate, open_output
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.ops.pixel_limit import without_pixel_limit
from anti_i2v_lit.tars import DamagedTar, list_tar, open_path, path_exists

_PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
    + (".tif", ".tiff", ".heic", ".heif", ".avif")
)
# Phones append a second picture to a JPEG; its first one is a JPEG like any other.
_SAME_FORMAT = {"MPO": "JPEG"}
_SWAPPED_ORIENTATIONS = (5, 6, 7, 8)
_ORIENTATION_TAG = 0x0112
# Rows per worker that are read before they are needed.
_AHEAD = 8


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong with one photo.

    Attributes:
        key: the photo, or the path of a file that the manifest does not know.
        kind: "missing", "changed", "unreadable", "source changed", "original", "unchanged",
            "size", "format", "shared output" or "unlisted".
        message: what is wrong and what to do.
    """

    key: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.kind}: {self.message}"


def verify(
    folder: Path,
    *,
    workers: int = 4,
    on_photo: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Check all cloaked rows of a folder against the files; reads every file once.

    Originals are compared where they can still be reached. Files in the folder that look like
    photos but have no row are findings too: nobody knows that they are cloaked.

    Args:
        folder: the output folder.
        workers: files read at once.
        on_photo: called with (photos checked, photos in all) after each photo.

    Raises:
        ValueError: no such folder or a damaged manifest.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --out of a run")
    pillow_heif.register_heif_opener()
    rows = Ledger(folder).rows()
    owners, shared = _owners(row for row in rows.values() if row.status == "cloaked")
    num_cloaked = len(owners) + len(shared)
    cloaked = (row for row in rows.values() if row.status == "cloaked")
    findings: list[Finding] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        checked = _in_turn(pool, lambda row: check_row(folder, row), cloaked, _AHEAD * workers)
        for number, found in enumerate(checked, start=1):
            findings += found
            if on_photo is not None:
                on_photo(number, num_cloaked)
    return findings + shared + _unlisted(folder, owners)


def _in_turn(
    pool: ThreadPoolExecutor,
    check: Callable[[Row], list[Finding]],
    rows: Iterable[Row],
    ahead: int,
) -> Iterator[list[Finding]]:
    """Like `pool.map`, which would hold all rows at once."""
    waiting: deque[Future[list[Finding]]] = deque()
    for row in rows:
        waiting.append(pool.submit(check, row))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def source_path(folder: Path, row: Row) -> Path | None:
    """Where the original can be read now: as recorded, or relative to the output folder.

    The path may lead through a tar: read it with `tars.open_path`.
    """
    if not row.source:
        return None
    for path in (Path(row.source), folder / row.source):
        try:
            if path_exists(path):
                return path
        except (OSError, ValueError):
            continue
    return None


def _digest(stream: io.BufferedReader | io.BytesIO) -> str:
    with stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_row(folder: Path, row: Row) -> list[Finding]:
    """Findings of one cloaked row."""

    def finding(kind: str, message: str) -> Finding:
        return Finding(key=row.key, kind=kind, message=message)

    try:
        output_sha256 = _digest(open_output(folder, row.output))
    except FileNotFoundError:
        return [finding("missing", f"{row.output} is gone; run cloak again to make it")]
    except OSError as error:
        return [finding("unreadable", f"{row.output}: {error.strerror}")]
    findings = []
    if row.output_sha256 and output_sha256 != row.output_sha256:
        findings.append(finding("changed", f"{row.output} is not the file that was written"))
    if output_sha256 == row.source_sha256:
        findings.append(finding("original", f"{row.output} is the ORIGINAL, not a cloak"))
    if row.max_change_8bit == 0:
        findings.append(finding("unchanged", "no pixel of the cloak differs from the photo"))
    source = source_path(folder, row)
    if source is not None:
        output = locate(folder, row.output)
        findings += [finding(*parts) for parts in _against_source(row, output, source)]
    return findings


def _against_source(row: Row, output: Path, source: Path) -> Iterable[tuple[str, str]]:
    try:
        if row.source_sha256 and _digest(open_path(source)) != row.source_sha256:
            yield "source changed", f"{source} is no longer the file that was cloaked"
            return
    except OSError as error:
        yield "source changed", f"{source} cannot be read: {error.strerror}"
        return
    try:
        output_format, output_size = _header(output)
        source_format, source_size = _header(source)
    except (OSError, ValueError, SyntaxError) as error:
        yield "unreadable", f"{row.output} or its original cannot be opened: {error}"
        return
    if output_size != source_size:
        yield "size", f"{_text(output_size)} pixels, the original has {_text(source_size)}"
    if output_format != source_format and output.suffix.lower() == source.suffix.lower():
        yield "format", f"a {output_format} file, the original is {source_format}"


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """Format and displayed size (after the orientation tag); decodes no pixels."""
    try:
        # Its pixels are counted, not decoded, and the run that wrote it has its own limit.
        with without_pixel_limit(), open_path(path) as stream, Image.open(stream) as image:
            width, height = image.size
            if image.getexif().get(_ORIENTATION_TAG, 1) in _SWAPPED_ORIENTATIONS:
                width, height = height, width
            name = image.format or ""
            return _SAME_FORMAT.get(name, name), (width, height)
    except Image.UnidentifiedImageError:
        return "TIFF", _tiff_size(path)


def _tiff_size(path: Path) -> tuple[int, int]:
    """Size of a TIFF that Pillow does not know, such as 16 bits per channel."""
    import tifffile

    with open_path(path) as stream, tifffile.TiffFile(stream) as stored:
        page = stored.pages.first
        tag = page.tags.get(_ORIENTATION_TAG)
        width, height = page.imagewidth, page.imagelength
    swapped = tag is not None and tag.value in _SWAPPED_ORIENTATIONS
    return (height, width) if swapped else (width, height)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _owners(cloaked: Iterable[Row]) -> tuple[dict[str, str], list[Finding]]:
    """Output -> key of the photo that has it, and a finding for each further photo."""
    owners: dict[str, str] = {}
    findings = []
    for row in cloaked:
        first = owners.setdefault(row.output, row.key)
        if first != row.key:
            message = f"{row.output} is also the output of {first}"
            findings.append(Finding(key=row.key, kind="shared output", message=message))
    return owners, findings


def _unlisted(folder: Path, listed: Collection[str]) -> list[Finding]:
    findings = []
    for path in _photos_below(folder):
        if path not in listed:
            message = "not in the manifest, so nothing says that it is cloaked"
            findings.append(Finding(key=path, kind="unlisted", message=message))
    return findings


def _photos_below(folder: Path) -> Iterable[str]:
    """Files named as photos, and such members of the shards that lie in the folder itself."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.endswith(SHARD_SUFFIX) and Path(parent) == folder:
                yield from (f"{name}/{m}" for m in _members(path) if _is_photo(m))
            elif _is_photo(name):
                yield path.relative_to(folder).as_posix()


def _members(tar: Path) -> list[str]:
    try:
        return sorted(list_tar(tar))
    except (DamagedTar, OSError):
        return []


def _is_photo(name: str) -> bool:
    last = name.rpartition("/")[2]
    return Path(last).suffix.lower() in _PHOTO_SUFFIXES and not last.startswith(".")
