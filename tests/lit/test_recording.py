"""Records and log lines of a run: which photo, step, rank and node."""

from __future__ import annotations

import csv
import os
import re
import socket
from pathlib import Path

import pytest
from PIL import Image
from skimage.data import astronaut
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.bench.free_surrogate import offer
from anti_i2v_lit.lit import progress
from anti_i2v_lit.lit.gauges import host_memory_mb
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings, load_settings

_PHOTOS = ("a.png", "b.png", "c.png")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.syspath_prepend(offer(tmp_path / "plugin"))
    values = {
        "surrogates": [{"name": "free"}],
        "objectives": [{"name": "ira_latent", "direction": "away"}],
        "attack": {"steps": 12, "num_verification_draws": 1},
        "gate": {"min_psnr_db": 0, "min_ssim": 0, "max_ciede2000": 0, "max_lpips": 0},
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(_PHOTOS):
        left = 40 * number
        picture = Image.fromarray(astronaut()[40:168, left : left + 128]).resize((64, 64))
        picture.save(tmp_path / "photos" / name)
    return load_settings(values=values)


def test_every_run_and_rank_keeps_a_csv_and_events(
    tmp_path: Path, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    assert cloak(settings, photos=[str(tmp_path / "photos")], out=out) == 2
    (folder,) = (out / ".anti_i2v" / "logs").glob("*/rank-0000")
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    ledger = Ledger(out).rows()
    outcomes = {row["photo"]: row for row in rows if row["event"] != "step"}
    assert sorted(outcomes) == sorted(ledger) == sorted([*_PHOTOS, "broken.png"])
    assert outcomes["broken.png"]["event"] == "failed" and outcomes["broken.png"]["reason"]
    for name in _PHOTOS:
        steps = [row for row in rows if row["photo"] == name and row["event"] == "step"]
        assert [int(row["step"]) for row in steps] == [5, 10, 12]
        assert float(outcomes[name]["psnr"]) == pytest.approx(ledger[name].psnr, rel=1e-4)
        assert float(outcomes[name]["loss"]) == pytest.approx(ledger[name].loss_last, rel=1e-4)
        assert 0 < float(steps[-1]["canvas_change_8bit"]) <= float(steps[-1]["budget_8bit"]) + 0.5
    assert {row["node"] for row in rows} == {socket.gethostname()} and rows[0]["rank"] == "0"
    assert rows[0]["gpu_memory_mb"] == "" and float(rows[0]["host_memory_mb"]) > 50
    assert int(rows[-1]["photos_done"]) == 4 and float(rows[-1]["photos_per_hour"]) > 0

    events = EventAccumulator(str(folder)).Reload().Tags()
    assert {"step/total", "step/budget_8bit", "run/photos_per_hour", "quality/psnr"} <= set(
        events["scalars"]
    )
    assert {f"{name}/photo_cloak_residual" for name in _PHOTOS} == set(events["images"])

    printed = capfd.readouterr().err
    assert "step/s" not in printed and "\r" not in printed, "no bar where nobody looks at one"
    node = re.escape(socket.gethostname())
    for name in _PHOTOS:
        assert re.search(rf"{node} rank 0: {name} cloaked in .* 12 steps, .*\[\d/4", printed)
    assert re.search(r"broken\.png failed: ", printed)


def test_a_name_that_is_not_utf_8_is_recorded(tmp_path: Path, settings: Settings) -> None:
    odd = tmp_path / "photos" / os.fsdecode(b"bad\xff.png")
    (tmp_path / "photos" / "a.png").rename(odd)
    assert cloak(settings, photos=[str(odd)], out=tmp_path / "out") == 0
    (folder,) = (tmp_path / "out" / ".anti_i2v" / "logs").glob("*/rank-0000")
    images = EventAccumulator(str(folder)).Reload().Tags()["images"]
    assert images == ["bad\\udcff.png/photo_cloak_residual"]


def test_a_second_run_gets_a_folder_of_its_own_and_false_none(
    tmp_path: Path, settings: Settings
) -> None:
    out, photos = tmp_path / "out", [str(tmp_path / "photos" / "a.png")]
    assert cloak(settings, photos=photos, out=out) == 0
    first = {path: path.read_bytes() for path in (out / ".anti_i2v" / "logs").rglob("*.csv")}
    photos.append(str(tmp_path / "photos" / "b.png"))
    silent = load_settings(values=settings.plain(), overrides=["trainer.logger=false"])
    assert cloak(silent, photos=photos, out=out) == 0
    photos.append(str(tmp_path / "photos" / "c.png"))
    assert cloak(settings, photos=photos, out=out) == 0
    found = list((out / ".anti_i2v" / "logs").rglob("*.csv"))
    assert len(first) == 1 and all(path.read_bytes() == first[path] for path in first)
    texts = {path: path.read_text() for path in found}
    assert [sum("b.png,cloaked" in text for text in texts.values())] == [0]
    assert sum("c.png,cloaked" in text for text in texts.values()) == 1


def test_long_photos_show_a_sign_of_life(
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    cloak(settings, photos=[str(tmp_path / "photos" / "a.png")], out=tmp_path / "out")
    printed = capfd.readouterr().err
    assert re.search(r"rank 0: a\.png at step 7/12, loss -?[\d.]+, \d+ MB of memory", printed)


def test_resident_memory_is_that_of_the_kernel() -> None:
    text = Path("/proc/self/status").read_text()
    kernel = int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024 / 1e6  # type: ignore[index]
    assert host_memory_mb() == pytest.approx(kernel, rel=0.1)


def test_models_of_transforms_are_recorded_as_those_that_took_part(
    tmp_path: Path, settings: Settings
) -> None:
    values = settings.plain()
    values["attack"].update(steps=1, transforms=[{"name": "remover", "work_px": 32}])
    out = tmp_path / "out"
    cloak(load_settings(values=values), photos=[str(tmp_path / "photos" / "a.png")], out=out)
    assert Ledger(out).rows()["a.png"].surrogates == ("free:", "remover:embedded")
