"""kill -9 at random moments: the bytes of an undisturbed run, every photo once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image
from skimage import data as pictures

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.verify import verify

ROOT = Path(__file__).parents[2]


def eight_photos(folder: Path) -> None:
    folder.mkdir()
    whole = Image.fromarray(pictures.astronaut())
    for number in range(8):
        left = 20 * number
        part = whole.crop((left, left, left + 256, left + 256)).resize((72 + number, 64))
        part.save(folder / f"{number}.{'png' if number % 2 else 'jpg'}", quality=90)


def run(
    checkpoint: Path, photos: Path, out: Path, kills: int, longest: float
) -> tuple[int, int, float]:
    """Kills that hit, exit status and seconds of the last child."""
    script = Path(__file__).with_name("killed.py")
    values = [str(checkpoint), str(photos), str(out), str(kills), "7", str(longest)]
    found = subprocess.run(
        [sys.executable, str(script), *values],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    hits, status, seconds = found.stdout.strip().splitlines()[-1].split()
    return int(hits), int(status), float(seconds)


def outputs(out: Path) -> dict[str, str]:
    return {
        key: hashlib.sha256((out / row.output).read_bytes()).hexdigest()
        for key, row in Ledger(out).rows().items()
    }


def test_twenty_kills_change_no_byte(tiny_checkpoint: Path, tmp_path: Path) -> None:
    eight_photos(tmp_path / "photos")
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    hits, status, seconds = run(tiny_checkpoint, tmp_path / "photos", calm, 0, 1.0)
    assert (hits, status) == (0, 0)
    # No child lives for a seventh of what all the work takes: it cannot be done before many kills.
    hits, status, _ = run(tiny_checkpoint, tmp_path / "photos", killed, 20, seconds / 7)
    assert status == 0
    assert hits >= 5, "too few kills hit a running child to prove anything"
    assert outputs(killed) == outputs(calm)
    assert len(outputs(calm)) == 8
    lines = (killed / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert verify(killed) == []
    leftovers = [p for p in killed.rglob("*") if p.name.endswith((".partial", "_tmp"))]
    assert leftovers == []
