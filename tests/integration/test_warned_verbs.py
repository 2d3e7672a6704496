"""Verbs that never look at SLURM's warning: it ends them at once, and the job is requeued."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from anti_i2v_lit.archive import verify as verifying
from anti_i2v_lit.archive.files import sha256_of
from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.cli import main as program
from anti_i2v_lit.data.shards import building
from anti_i2v_lit.slurm.signals import REQUEST
from tests.data.shards.making import photo_bytes

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int | None]]:
    """A task of a job; the signals with which it was left so that it continues."""
    earlier = [signal.getsignal(number) for number in SIGNALS]
    found: list[int | None] = []
    monkeypatch.setattr(program, "leave", lambda _task, received: found.append(received))
    for name, value in {"JOB_ID": "9", "PROCID": "0", "JOB_NAME": "x"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(REQUEST, "received", None)
    yield found
    for number, handler in zip(SIGNALS, earlier, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_job_that_makes_shards_continues(
    number: signal.Signals,
    tmp_path: Path,
    left: list[int | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        (photos / f"{index}.png").write_bytes(photo_bytes(index))
    out = tmp_path / "out"
    words = ["shard", str(photos), "samples_per_shard=1", "--out"]
    assert program.main([*words, str(tmp_path / "calm")]) == 0
    write = building.write_tar

    def warned(path: Path, members: object) -> object:
        if path.name.endswith("1.tar"):
            os.kill(os.getpid(), number)
        return write(path, members)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(building, "write_tar", warned)
        assert program.main([*words, str(out)]) == 3
    assert left == [number] and [p.name for p in out.glob("*.tar")] == ["shard-000000.tar"]
    monkeypatch.setattr(REQUEST, "received", None)
    assert program.main([*words, str(out)]) == 0
    digests = [
        [(p.name, sha256_of(p)) for p in sorted(folder.glob("*.tar"))]
        for folder in (out, tmp_path / "calm")
    ]
    assert digests[0] == digests[1] and len(digests[0]) == 3


def test_a_verification_is_begun_again(
    tmp_path: Path, left: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    for index in range(100):
        ledger.append(Row(key=f"{index}", status="cloaked", output=f"{index}.png"))
    checked: list[str] = []

    def warned(_folder: Path, row: Row) -> list[verifying.Finding]:
        checked.append(row.key)
        if len(checked) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return []

    monkeypatch.setattr(verifying, "check_row", warned)
    assert program.main(["verify", str(tmp_path), "--workers", "1"]) == 3
    assert left == [signal.SIGUSR1] and len(checked) < 100
