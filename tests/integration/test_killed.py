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


def run(checkpoint: Path, photos: Path, out: Path, kills: int) -> str:
    script = Path(__file__).with_name("killed.py")
    found = subprocess.run(
        [sys.executable, str(script), str(checkpoint), str(photos), str(out), str(kills), "7"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    return found.stdout.strip().splitlines()[-1]


def outputs(out: Path) -> dict[str, str]:
    return {
        key: hashlib.sha256((out / row.output).read_bytes()).hexdigest()
        for key, row in Ledger(out).rows().items()
    }


def test_twenty_kills_change_no_byte(tiny_checkpoint: Path, tmp_path: Path) -> None:
    eight_photos(tmp_path / "photos")
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert run(tiny_checkpoint, tmp_path / "photos", calm, 0) == "kills 0 exit 0"
    last = run(tiny_checkpoint, tmp_path / "photos", killed, 20)
    assert last.endswith("exit 0")
    assert int(last.split()[1]) >= 5, "too few kills hit a running child to prove anything"
    assert outputs(killed) == outputs(calm)
    assert len(outputs(calm)) == 8
    lines = (killed / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert verify(killed) == []
    leftovers = [p for p in killed.rglob("*") if p.name.endswith((".partial", "_tmp"))]
    assert leftovers == []
