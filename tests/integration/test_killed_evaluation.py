"""kill -9 in the middle of an evaluation: what was stored is kept, and nothing of it is redone."""

from __future__ import annotations

import collections
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anti_i2v_lit.evaluation.outcome_file import read_outcome
from tests.evaluation.fakes import write_noisy, write_photos

ROOT = Path(__file__).parents[2]
BATCH = 4
# photos x generators x purifications x (clean and cloak with three seeds each, noise with one)
NUM_CLIPS = 3 * 2 * 2 * (3 + 3 + 1)


def run(folder: Path, *stops: int) -> tuple[int, int]:
    """Kills that hit, and the exit status of the last child."""
    folder.mkdir()
    write_noisy(write_photos(folder / "photos", 3), folder / "ours", 12)
    script = Path(__file__).with_name("killed_evaluation.py")
    found = subprocess.run(
        [sys.executable, str(script), str(folder), *map(str, stops)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    hits, status = found.stdout.strip().splitlines()[-1].split()
    return int(hits), int(status)


def rows(folder: Path) -> dict[str, dict[str, float]]:
    """Identity -> figures; every identity comes once."""
    lines = [
        json.loads(line)
        for path in sorted((folder / "out" / "rows").glob("results*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert len({line["identity"] for line in lines}) == len(lines)
    return {
        line["identity"]: {n: math.nan if v is None else v for n, v in line["figures"].items()}
        for line in lines
    }


def test_kills_cost_a_batch_each_and_change_no_number(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert run(calm) == (0, 0)
    hits, status = run(killed, 6, 30, 61)
    assert (hits, status) == (3, 0)
    expected, found = rows(calm), rows(killed)
    assert len(expected) == NUM_CLIPS and set(found) == set(expected)
    for identity, figures in expected.items():
        assert found[identity] == pytest.approx(figures, rel=1e-5, abs=1e-5, nan_ok=True)
    made = collections.Counter((killed / "made.txt").read_text().splitlines())
    once = collections.Counter((calm / "made.txt").read_text().splitlines())
    assert set(made) == set(once) and set(once.values()) == {1}
    # Only the batch that each kill hit is made again, and clean clips that it had to compare with.
    again = sum(made.values()) - NUM_CLIPS
    assert 0 <= again <= hits * BATCH
    assert read_outcome(killed / "out").complete
