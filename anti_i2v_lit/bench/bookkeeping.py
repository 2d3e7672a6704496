"""What a photo costs beside its optimisation, and how fast a finished archive is scanned."""

from __future__ import annotations

import datetime
import os
import time
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.archive.ledger import MANIFEST, Ledger
from anti_i2v_lit.archive.row import Row, encode_row
from anti_i2v_lit.bench.subjects import write_photos
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.exit_codes import EXIT_DONE
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings

SIDE_PX = 2048
FULL_STEPS = 200
_FILES_PER_FOLDER = 1000


@dataclass(frozen=True, kw_only=True)
class Bookkeeping:
    """Cost of a photo in a real run.

    Attributes:
        step_seconds: of one sign step of one photo.
        other_seconds: per photo: reading, faces, progress, writing, judging, ledger.
    """

    step_seconds: float
    other_seconds: float

    @property
    def share(self) -> float:
        """Share of the other costs in a run of 200 steps."""
        return self.other_seconds / (self.other_seconds + FULL_STEPS * self.step_seconds)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Scanning a finished archive.

    Attributes:
        num_rows: photos, rows and cloaks in it.
        input_seconds: listing the photos.
        ledger_seconds: reading the ledger and finding every cloak.
        cpu_seconds: processor time of both, which other programs disturb less.
    """

    num_rows: int
    input_seconds: float
    ledger_seconds: float
    cpu_seconds: float


def measure_bookkeeping(settings: Settings, num_photos: int, folder: Path) -> Bookkeeping:
    """Cloak JPEG photos of 4 megapixels with the product and compare ledger times.

    The time from one photo's row to the next photo's is all that the next one cost; the row says
    how much of it was optimisation. The first photo, with the program's start, is left out.

    Args:
        settings: of the run; one photo at a time whatever they say.
        num_photos: at least 2.
        folder: an empty one.

    Raises:
        ValueError: too few photos, or a photo was not cloaked.
    """
    if num_photos < 2:
        raise ValueError(f"bookkeeping: expected at least 2 photos, got {num_photos}")
    assert settings.attack.batch_size == 1
    write_photos(folder / "photos", num_photos, SIDE_PX)
    if cloak(settings, photos=[str(folder / "photos")], out=folder / "out") != EXIT_DONE:
        raise ValueError(f"bookkeeping: a photo was not cloaked, see {folder / 'out'}")
    rows = list(Ledger(folder / "out").rows().values())
    ends = [datetime.datetime.fromisoformat(row.recorded).timestamp() for row in rows]
    spent = ends[-1] - ends[0]
    optimised = sum(row.seconds for row in rows[1:])
    steps = sum(row.steps for row in rows[1:])
    return Bookkeeping(
        step_seconds=optimised / steps,
        other_seconds=max(0.0, spent - optimised) / (num_photos - 1),
    )


def measure_scan(num_rows: int, folder: Path) -> Scan:
    """Build an archive of empty files with its ledger, then scan it as a resumed run would.

    Args:
        num_rows: photos.
        folder: an empty one.
    """
    photos, out = folder / "photos", folder / "out"
    keys = [f"{i // _FILES_PER_FOLDER:04d}/photo{i:07d}.jpg" for i in range(num_rows)]
    for place in (photos, out):
        for name in sorted({key.split("/")[0] for key in keys}):
            (place / name).mkdir(parents=True)
        for key in keys:
            os.close(os.open(place / key, os.O_CREAT | os.O_WRONLY))
    with (out / MANIFEST).open("wb") as file:
        file.writelines(encode_row(_row(key)) for key in keys)
    started, processor = time.perf_counter(), time.process_time()
    found = scan([str(photos)], out)
    listed = time.perf_counter()
    finished = Ledger(out).finished()
    ended, processor = time.perf_counter(), time.process_time() - processor
    assert len(found.sources) == len(finished) == num_rows
    return Scan(
        num_rows=num_rows,
        input_seconds=listed - started,
        ledger_seconds=ended - listed,
        cpu_seconds=processor,
    )


def _row(key: str) -> Row:
    return Row(
        key=key,
        status="cloaked",
        source=f"/photos/{key}",
        source_sha256="0" * 64,
        output=key,
        output_sha256="1" * 64,
        surrogates=("cogvideox:embedded",),
        config_sha256="2" * 64,
        steps=200,
        budget_8bit=16.0,
        seconds=12.345,
        loss_first=1.0,
        loss_last=-1.0,
        psnr=31.5,
        ssim=0.91,
        ciede2000=3.2,
        lpips=0.12,
        max_change_8bit=16.0,
        residual_kept=0.7,
        loss_kept=0.5,
        recorded="2026-01-01T00:00:00.000+00:00",
    )
