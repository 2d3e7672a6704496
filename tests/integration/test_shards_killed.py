"""kill -9 at random moments of a run over shards: the shards of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

from anti_i2v_lit.archive.verify import verify
from tests.data.shards.making import samples, write
from tests.integration.test_killed import run


def test_kills_change_no_shard(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        write(folder / f"p-{number}.tar", samples(2, start=2 * number))
    spec, calm, killed = folder / "p-{0..1}.tar", tmp_path / "calm", tmp_path / "killed"
    hits, status, seconds = run(tiny_checkpoint, spec, calm, 0, 1.0)
    assert (hits, status) == (0, 0)
    hits, status, _ = run(tiny_checkpoint, spec, killed, 8, seconds / 3)
    assert status == 0 and hits >= 2
    for name in ("p-0.tar", "p-1.tar"):
        assert (killed / name).read_bytes() == (calm / name).read_bytes()
    assert len((killed / "manifest.jsonl").read_text().splitlines()) == 4
    assert verify(killed) == []
    assert not [p for p in killed.rglob("*") if p.name.endswith((".partial", "_tmp"))]
