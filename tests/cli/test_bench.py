"""`anti-i2v bench` with small numbers: that it measures what it says, not how fast we are."""

from __future__ import annotations

import json
import mmap
import multiprocessing
import re
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.bench import bookkeeping, memory
from anti_i2v_lit.bench.bookkeeping import Bookkeeping, measure_scan
from anti_i2v_lit.bench.memory import Memory
from anti_i2v_lit.bench.plain_loop import PlainLoop
from anti_i2v_lit.bench.speed import Pace, Speed, run_product
from anti_i2v_lit.bench.subjects import jobs_of, loop_of
from anti_i2v_lit.cli.main import main
from anti_i2v_lit.settings import Settings, load_settings, resolve
from tests.conftest import fast_values


def words(checkpoint: Path) -> list[str]:
    return [
        f"surrogates.0.path={checkpoint}", "attack.num_draws=2",
        "attack.num_verification_draws=1", "framing.canvas_side_px=48",
        "trainer.accelerator=cpu", "gate.min_psnr_db=0", "gate.min_ssim=0",
        "gate.max_ciede2000=0", "gate.max_lpips=0",
    ]  # fmt: skip


@pytest.fixture
def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small photos, and one of the two processes whose memory is measured: the other is as it."""
    monkeypatch.setattr(bookkeeping, "SIDE_PX", 256)
    in_a_process = memory._growth

    def growth(variant: str, settings: Path, num_photos: int) -> float:
        if variant == "plain":
            return in_a_process(variant, settings, num_photos)
        plain = json.loads(settings.read_text(encoding="utf-8"))
        return float(memory.growth_bytes(variant, resolve(plain), num_photos))

    monkeypatch.setattr(memory, "_growth", growth)


def test_every_part_is_in_the_table(
    quicker: None, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--steps", "2", "--photos", "2", "--batch-size", "2", "--rows", "200"]
    assert main(["bench", *small, *words(tiny_checkpoint)]) == 0
    text = capsys.readouterr().out
    assert f"torch {torch.__version__}" in text and "2 photos, 2 steps, batches of 2" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len([r for r in rows if not r.startswith("| ---")]) == 6
    for start in ("photos per hour, product over", "peak memory per photo", "reading, faces"):
        (row,) = [r for r in rows if r.startswith(f"| {start}")]
        assert re.search(r"\| (yes|no) \|$", row) and re.search(r"\d", row.split("|")[2])


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--parts", "speed,memry", "attack.steps=3"]) == 1
    assert "Did you mean 'memory'" in capsys.readouterr().err


@pytest.fixture
def toward_settings(tiny_checkpoint: Path) -> Settings:
    """Terms that look at the clean photo and at the anchor, with plain sign steps."""
    values = fast_values(tiny_checkpoint)
    values["space"] = {"name": "rgb"}
    values["attack"] = {**dict(values["attack"]), "momentum": 0.0}  # type: ignore[call-overload]
    values["objectives"] = [{"name": "denoising"}, {"name": "ira_denoiser"}, {"name": "ira_latent"}]
    return load_settings(values=values)


def test_the_plain_loop_lowers_the_same_loss(toward_settings: Settings) -> None:
    loop = loop_of(toward_settings)
    for runner in ("plain", "product"):
        (job,) = jobs_of(toward_settings, loop, 1)
        loop.begin(job)
        before = loop.judge(job, loop.cloaked_canvas(job).detach())
        if runner == "plain":
            PlainLoop(loop).run(job, 12)
        else:
            run_product(loop, [job], 12)
        cloak = loop.cloaked_canvas(job).detach()
        assert job.step == 12 and loop.judge(job, cloak) < before, runner
        assert (cloak - job.canvas).abs().max() <= 16 / 255 + 1e-6


def test_the_plain_loop_pays_for_what_it_should(
    toward_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_of(toward_settings)
    surrogate = loop.surrogates[0].surrogate
    encoded: list[bool] = []
    denoised: list[tuple[bool, bool]] = []
    encode, denoise = surrogate._encode_clip, surrogate._denoise

    def seen_encode(clips: torch.Tensor) -> torch.Tensor:
        encoded.append(clips.requires_grad and torch.is_grad_enabled())
        return encode(clips)

    def seen_denoise(condition, draw, taps, prediction):
        denoised.append((prediction, torch.is_grad_enabled()))
        return denoise(condition, draw, taps, prediction)

    monkeypatch.setattr(surrogate, "_encode_clip", seen_encode)
    monkeypatch.setattr(surrogate, "_denoise", seen_denoise)
    (job,) = jobs_of(toward_settings, loop, 1)
    loop.begin(job)
    PlainLoop(loop).run(job, 3)
    assert encoded == [True] * 3
    assert all(prediction for prediction, _ in denoised)
    assert [gradient for _, gradient in denoised].count(True) == 3
    assert len(denoised) == 3 * 3  # the cloak, the anchor and the clean photo at every step


def holds(pipe: Connection) -> None:
    """Hold 50 MiB for a moment, and tell how far memory grew then and afterwards."""
    before = memory._resident_peak(restart=True)
    # Straight from the system: an allocator may give memory that it has kept since earlier tests.
    with mmap.mmap(-1, 50 * 2**20) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
    grown = memory._resident_peak(restart=False) - before
    pipe.send((grown, memory._resident_peak(restart=True) - before))


def test_memory_sees_what_a_process_held() -> None:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=holds, args=(theirs,))
    process.start()
    theirs.close()
    grown, left = ours.recv()
    process.join()
    assert 45 * 2**20 < grown < 80 * 2**20
    assert left < 20 * 2**20


def test_a_finished_archive_is_scanned(tmp_path: Path) -> None:
    began = time.perf_counter()
    found = measure_scan(2500, tmp_path)
    whole = time.perf_counter() - began
    assert found.num_rows == 2500
    assert 0 < found.ledger_seconds < whole and 0 < found.input_seconds < whole


def test_ratios() -> None:
    speed = Speed(
        product=Pace(seconds=2, cpu_seconds=1, loss=0, loss_last=-2),
        plain=Pace(seconds=8, cpu_seconds=5, loss=0, loss_last=-1),
    )
    assert (speed.ratio, speed.cpu_ratio) == (4, 5)
    assert Memory(product=30, plain=20).ratio == 1.5
    assert Bookkeeping(step_seconds=0.1, other_seconds=20 / 19).share == pytest.approx(0.05)
