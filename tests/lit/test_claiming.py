from __future__ import annotations

import threading
from pathlib import Path

import pytest

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.lock import FILES, Claims, FolderInUse
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
from anti_i2v_lit.lit.claiming import restricted, units_of
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings
from tests.data.shards.making import photo_bytes, samples, write


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Two shards, one with a sample that is none, and two files."""
    write(tmp_path / "a.tar", [*samples(2), ("x.txt", b"no photo")])
    write(tmp_path / "b.tar", samples(1, start=7))
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(photo_bytes(3))
    return [str(tmp_path / name) for name in ("a.tar", "b.tar", "one.png", "two.png")]


def test_units_are_shards_and_all_other_photos(inputs: list[str], tmp_path: Path) -> None:
    found = scan(inputs, tmp_path / "out")
    counts = {unit: len(keys) for unit, keys in units_of(found).items()}
    assert counts == {FILES: 2, "a.tar": 3, "b.tar": 1}
    one = restricted(found, {"a.tar"})
    assert [s.key.partition("/")[0] for s in one.sources] == ["a", "a"]
    assert len(one.broken) == 1 and len(one.shards) == 1
    files = restricted(found, {FILES})
    assert len(files.sources) == 2 and not files.broken and not files.shards
    assert restricted(found, {FILES, "a.tar", "b.tar"}) is found


def test_what_another_run_holds_is_left_to_it(
    inputs: list[str], tmp_path: Path, fast_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    out, shards = tmp_path / "out", inputs[:2]
    with Claims(out) as other:
        assert other.claim(["b.tar"]) == {}
        assert cloak(fast_settings, photos=shards, out=out) == EXIT_INTERRUPTED
        assert "left out: b.tar" in capsys.readouterr().err
        assert sorted(p.name for p in out.glob("*.tar")) == ["a.tar"]
        with pytest.raises(FolderInUse, match="in use by another run"):
            cloak(fast_settings, photos=[inputs[1]], out=out)
    assert cloak(fast_settings, photos=shards, out=out) == 2  # x.txt is no photo
    assert len(Ledger(out).rows()) == 4
    assert sorted(p.name for p in out.glob("*.tar")) == ["a.tar", "b.tar"]
    assert threading.active_count() < 20, "leases leave no threads behind"
