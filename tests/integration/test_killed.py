"""kill -9 at random moments: the bytes of an undisturbed run, every photo once, shards whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as pictures

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.verify import verify
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import load_settings
from tests.conftest import fast_values
from tests.data.shards.making import samples, write

ROOT = Path(__file__).parents[2]


def five_photos(folder: Path) -> Path:
    folder.mkdir()
    whole = Image.fromarray(pictures.astronaut())
    for number in range(5):
        left = 20 * number
        part = whole.crop((left, left, left + 256, left + 256)).resize((72 + number, 64))
        part.save(folder / f"{number}.{'png' if number % 2 else 'jpg'}", quality=90)
    return folder


def two_shards(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        write(folder / f"p-{number}.tar", samples(2, start=2 * number))
    return folder / "p-{0..1}.tar"


@dataclass
class Runs:
    """An undisturbed run, and one of many lives; both were given the same photos."""

    calm: Path
    killed: Path
    hits: int
    status: int


@pytest.fixture(scope="module")
def runs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runs]:
    """Of a folder of five photos (30 steps) and of two shards with two photos each (24 steps)."""
    folder = tmp_path_factory.mktemp("killed")
    photos = {"files": five_photos(folder / "files"), "shards": two_shards(folder / "shards")}
    kills = {"files": 8, "shards": 5}
    script = Path(__file__).with_name("killed.py")
    words = [sys.executable, str(script), str(tiny_checkpoint), "7"]
    for kind, place in photos.items():
        words += [str(kills[kind]), str(place), str(folder / f"killed_{kind}")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000, check=True
    )
    settings, made = load_settings(values=fast_values(tiny_checkpoint)), {}
    lines = [line.split()[1:] for line in found.stdout.splitlines() if line.startswith("killed")]
    for (kind, place), (hits, status) in zip(photos.items(), lines, strict=True):
        calm = folder / f"calm_{kind}"
        assert cloak(settings, photos=[str(place)], out=calm) == 0
        killed = folder / f"killed_{kind}"
        made[kind] = Runs(calm=calm, killed=killed, hits=int(hits), status=int(status))
    return made


def outputs(out: Path) -> dict[str, str]:
    return {
        key: hashlib.sha256((out / row.output).read_bytes()).hexdigest()
        for key, row in Ledger(out).rows().items()
    }


@pytest.mark.parametrize(("kind", "photos"), [("files", 5), ("shards", 4)])
def test_every_photo_is_done_once_whatever_was_killed(
    runs: dict[str, Runs], kind: str, photos: int
) -> None:
    found = runs[kind]
    # A life takes six steps at most, of the six that each photo needs.
    assert found.status == 0 and found.hits >= photos - 1
    assert len((found.killed / "manifest.jsonl").read_text().splitlines()) == photos
    assert verify(found.killed) == []
    leftovers = [p for p in found.killed.rglob("*") if p.name.endswith((".partial", "_tmp"))]
    assert leftovers == []


def test_kills_change_no_byte(runs: dict[str, Runs]) -> None:
    assert outputs(runs["files"].killed) == outputs(runs["files"].calm)
    assert len(outputs(runs["files"].calm)) == 5


def test_kills_change_no_shard(runs: dict[str, Runs]) -> None:
    for name in ("p-0.tar", "p-1.tar"):
        killed, calm = (f / name for f in (runs["shards"].killed, runs["shards"].calm))
        assert killed.read_bytes() == calm.read_bytes()
