"""Two processes on the CPU: the bytes of one, one lock, one report, no waiting at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import PhotoDataModule
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.lit.writer import CloakWriter
from anti_i2v_lit.settings import Settings, load_settings
from tests.conftest import fast_values
from tests.lit.test_cloak_run import digests

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 1000  # only a machine that hangs takes as long


def command(photos: Path, out: Path, checkpoint: Path, steps: int) -> list[str]:
    values: dict[str, Any] = fast_values(checkpoint)
    values["attack"]["steps"] = steps
    values["trainer"]["devices"] = 2
    config = out.parent / "two.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    words = ["cloak", str(photos), "--out", str(out), "--config", str(config)]
    return [sys.executable, "-m", "anti_i2v_lit", *words]


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def in_flight(out: Path) -> int:
    """Groups of photos that were saved in the middle of their work."""
    return len(list((out / ".anti_i2v" / "in_flight").glob("*.safetensors")))


def wait_in_flight(process: subprocess.Popen[str], out: Path, groups: int = 2) -> None:
    """Wait until a run has saved so many groups."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while in_flight(out) < groups:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{in_flight(out)} of {groups} groups were saved"
        time.sleep(0.2)


def other_rank(process: subprocess.Popen[str]) -> int:
    """Process id of the rank that rank 0 started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(c) for c in children if b"cloak" in Path(f"/proc/{c}/cmdline").read_bytes())


def test_two_processes_write_the_bytes_of_one(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, fast_settings: Settings
) -> None:
    # Three readable photos: an odd number, and a bad file that costs its rank no step.
    (photo_folder / "sub" / "turned.jpg").write_bytes(b"")
    assert cloak(fast_settings, photos=[str(photo_folder)], out=tmp_path / "one") == 2
    two = tmp_path / "two"
    process = start(command(photo_folder, two, tiny_checkpoint, steps=6))
    shown, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2, errors
    assert digests(two) == digests(tmp_path / "one")
    assert len((two / "manifest.jsonl").read_text().splitlines()) == 4
    assert shown.count("3 cloaked, 0 refused, 1 failed") == 1, "every rank reported"
    assert (two / "report.html").is_file()


def test_sigterm_to_the_first_process_stops_both_and_the_rest_is_done_later(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    words = command(photo_folder, out, tiny_checkpoint, steps=4000)
    process = start(words)
    wait_in_flight(process, out)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert Ledger(out).rows() == {}
    assert in_flight(out) == 2


def test_a_killed_process_stops_the_other_which_saves(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    process = start(command(photo_folder, out, tiny_checkpoint, steps=4000))
    wait_in_flight(process, out)
    os.kill(other_rank(process), signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert "rank 1 was killed by signal 9" in errors and "Traceback" not in errors, errors
    assert in_flight(out) == 2


def test_a_strategy_that_averages_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    values = {**fast_values(tiny_checkpoint), "trainer": {"strategy": "ddp"}}
    with pytest.raises(ValueError, match="average"):
        load_settings(values=values)


def test_a_trainer_of_a_program_that_would_average_or_round_is_refused(
    photo_folder: Path, tmp_path: Path, fast_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def fit(**options: object) -> None:
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
            callbacks=[CloakWriter(fast_settings, out=out)], **options,
        )  # type: ignore[arg-type]  # fmt: skip
        data = PhotoDataModule(fast_settings, photos=[str(photo_folder)], out=out)
        trainer.fit(CloakModule(fast_settings, out=out), datamodule=data)

    with pytest.raises(ValueError, match="32-true"):
        fit(precision="bf16-mixed")
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    with pytest.raises(ValueError, match="PhotoParallelStrategy"):
        fit()
