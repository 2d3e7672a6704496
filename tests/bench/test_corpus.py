"""The parts of the corpus bench, with the product's own reader and verify as the referees."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.verify import verify
from anti_i2v_lit.bench import watching
from anti_i2v_lit.bench.corpus_inputs import SIZE, fill_up, write_corpus
from anti_i2v_lit.bench.corpus_page import Stage, page
from anti_i2v_lit.bench.free_surrogate import FreeConfig, FreeSurrogate, offer
from anti_i2v_lit.bench.watching import watch
from anti_i2v_lit.data.shards import SAMPLE_SOURCES
from anti_i2v_lit.data.shards.building import BuildConfig, build_shards
from anti_i2v_lit.surrogates import SURROGATES


def test_stand_ins_stand_up_to_verify(tmp_path: Path) -> None:
    photos, shards, out = tmp_path / "photos", tmp_path / "shards", tmp_path / "out"
    write_corpus(photos, 5)
    before = {p: p.stat().st_mtime_ns for p in photos.rglob("*.jpg")}
    write_corpus(photos, 5)
    assert before == {p: p.stat().st_mtime_ns for p in photos.rglob("*.jpg")}
    assert all(Image.open(path).size == SIZE for path in before)
    assert len({path.read_bytes() for path in before}) == 5
    source = SAMPLE_SOURCES.build({"name": "photos"})
    build_shards(source, [photos], shards, BuildConfig(samples_per_shard=2), settings={})
    out.mkdir()
    tars = sorted(shards.glob("*.tar"))
    assert fill_up(tars, out) == 5 and fill_up(tars, out) == 0
    assert verify(out) == []
    assert len(Ledger(out).finished()) == 5


class Clock:
    """Stands still until a file is there; at the second look after that, an hour has passed."""

    def __init__(self, file: Path) -> None:
        self.file, self.looks = file, 0

    def monotonic(self) -> float:
        self.looks += self.file.exists()
        return 3600.0 if self.looks > 1 else 0.0


def test_a_program_is_watched_with_its_children_and_stopped_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    child = (
        "import os, pathlib, time\n"
        "parent, block = os.getppid(), bytearray(80_000_000)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while os.getppid() == parent:\n"  # nothing is left behind when the parent is stopped
        "    time.sleep(0.05)\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    words = [sys.executable, "-c", parent]
    monkeypatch.setattr(watching, "time", Clock(ready))
    seen = watch(words, os.environ, tmp_path / "log", lambda: 7, 0.2, limit_seconds=6.0)
    assert seen.code == -15 and seen.seconds == 3600.0
    assert max(sample.rss_bytes for sample in seen.samples) > 80e6
    assert {sample.done for sample in seen.samples} == {7}


def test_growth_is_the_slope_over_photos() -> None:
    samples = [[float(i), 1e9 + 150.0 * 100 * i, 100 * i] for i in range(101)]
    stage = Stage(name="cloak", photos=10_000, seconds=100.0, cpu_seconds=50.0, samples=samples)
    assert stage.bytes_per_photo == pytest.approx(150.0)
    assert stage.resident_at(0.5) == pytest.approx(1e9 + 150.0 * 5000)
    text = page([stage], 20_000, 1, 222.4)
    assert "| cloak | 10,000 | 100 | 50 | 10.00 | 5.00 |" in text
    assert "stopped after 10,000" in text and "222 bytes" in text


def test_the_free_surrogate_is_found_as_a_plug_in_and_has_a_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "free" not in SURROGATES.names()
    monkeypatch.syspath_prepend(offer(tmp_path))
    surrogate = SURROGATES.build({"name": "free", "side_px": 16})
    views = torch.rand(2, 3, 16, 16).requires_grad_()
    latents = surrogate.condition(views).latents
    assert torch.allclose(latents[1, 2, 3, 0], views[1, 2, 12:16, :4].mean())
    (gradient,) = torch.autograd.grad(latents.sum(), views)
    assert torch.allclose(gradient, torch.full_like(gradient, 1 / 16))
    assert FreeSurrogate.tiny().encode_clip(torch.rand(1, 1, 3, 16, 16)).shape == (1, 1, 3, 4, 4)
    with pytest.raises(ValueError, match="multiple of 4"):
        FreeConfig(side_px=10)
