"""Two processes over three shards: the bytes of one process, shard for shard."""

from __future__ import annotations

from pathlib import Path

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import load_settings
from tests.conftest import fast_values
from tests.data.shards.making import samples, write
from tests.lit.test_parallel import command, start


def test_two_processes_write_the_shards_of_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):  # one for each process, the third one photo by photo
        write(folder / f"p-{number:06d}.tar", samples(2, start=2 * number))
    spec = Path(f"{folder}/p-{{000000..000002}}.tar")
    two = tmp_path / "two"
    process = start(command(spec, two, tiny_checkpoint, steps=2))
    settings = load_settings(values=fast_values(tiny_checkpoint), overrides=["attack.steps=2"])
    assert cloak(settings, photos=[str(spec)], out=tmp_path / "one") == 0
    shown, errors = process.communicate(timeout=1000)
    assert process.returncode == 0, errors
    tars = sorted(p.name for p in two.glob("*.tar"))
    assert tars == ["p-000000.tar", "p-000001.tar", "p-000002.tar"]
    for name in tars:
        assert (two / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert len((two / "manifest.jsonl").read_text().splitlines()) == 6 == len(Ledger(two).rows())
    assert "6 cloaked" in shown
