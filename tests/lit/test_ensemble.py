"""Ensembles end to end: one process or a surrogate per process, resumed across the two."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.lit import planning
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.placement import Placement, placement_in
from anti_i2v_lit.lit.planning import plan
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.settings import Settings, load_settings
from tests.conftest import fast_values
from tests.lit.test_cloak_run import digests
from tests.lit.test_parallel import (
    PATIENCE_SECONDS,
    in_flight,
    other_rank,
    start,
    wait_in_flight,
)


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model of another generation and other weights."""
    folder = tmp_path_factory.mktemp("other") / "tiny"
    tiny_cogvideox("1.5", seed=3).save_pretrained(folder)
    return folder


@pytest.fixture
def values(tiny_checkpoint: Path, other_checkpoint: Path) -> dict[str, Any]:
    """Two models, the second with terms of its own."""
    found: dict[str, Any] = fast_values(tiny_checkpoint)
    found["surrogates"] += [
        {
            "name": "cogvideox",
            "path": str(other_checkpoint),
            "weight": 0.5,
            "objectives": [{"name": "denoising"}, {"name": "irc", "shallow_tap": "0"}],
        }
    ]
    found["attack"]["momentum"] = 0.9
    return found


@pytest.fixture
def photos(photo_folder: Path) -> Path:
    """Two photos."""
    (photo_folder / "sub" / "turned.jpg").unlink()
    (photo_folder / "cat.jpg").unlink()
    return photo_folder


def command(photos: Path, out: Path, values: dict[str, Any], *words: str) -> list[str]:
    import sys

    config = out.parent / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    words = ("cloak", str(photos), "--out", str(out), "--config", str(config), *words)
    return [sys.executable, "-m", "anti_i2v_lit", *words]


def test_begun_in_one_process_and_finished_by_one_per_model(
    photos: Path, tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle; retried by the gate; the bytes and rows of an undisturbed run."""
    first = tmp_path / "first"
    assert cloak(load_settings(values=values), photos=[str(photos)], out=first) == 0
    decibels = [row.psnr or 0.0 for row in Ledger(first).rows().values()]
    values["gate"]["min_psnr_db"] = max(decibels) + 0.5  # the first budget is too visible
    values["gate"]["budget_factor"] = 0.5
    settings = load_settings(values=values)
    assert cloak(settings, photos=[str(photos)], out=tmp_path / "one") == 0

    class Killed(RuntimeError):
        pass

    original = CloakModule.training_step

    def dies(self: CloakModule, group: Any, batch_idx: int) -> Any:
        if batch_idx == 3:
            raise Killed
        return original(self, group, batch_idx)

    two = tmp_path / "two"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(CloakModule, "training_step", dies)
        cloak(settings, photos=[str(photos)], out=two)
    words = command(photos, two, values, "ensemble.layout=per_rank", "trainer.devices=2")
    process = start(words)
    _, errors = process.communicate(timeout=1000)
    assert process.returncode == 0, errors
    assert digests(two) == digests(tmp_path / "one") and len(digests(two)) == 2
    rows, expected = Ledger(two).rows(), Ledger(tmp_path / "one").rows()
    assert {row.budget_8bit for row in rows.values()} == {8.0}
    assert len((two / "manifest.jsonl").read_text().splitlines()) == 2
    for key, row in expected.items():
        assert len(row.surrogates) == len(row.losses_first) == len(row.losses_last) == 2
        weighted = row.losses_last[0] + 0.5 * row.losses_last[1]
        assert row.loss_last == pytest.approx(weighted, abs=1e-4)
        assert replace(rows[key], seconds=0, recorded="") == replace(row, seconds=0, recorded="")


def test_a_surrogate_that_does_not_load_stops_every_process_with_its_name(
    photos: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    values["surrogates"][1]["path"] = str(tmp_path / "nowhere")
    words = command(
        photos, tmp_path / "out", values, "ensemble.layout=per_rank", "trainer.devices=2"
    )
    process = start(words)
    _, errors = process.communicate(timeout=1000)
    assert process.returncode == 1
    message = f"surrogate cogvideox:{tmp_path / 'nowhere'} did not load"
    assert f"anti-i2v cloak: rank 1: {message}" in errors, "said by the first process"
    assert f"anti-i2v cloak: {message}" in errors and "Traceback" not in errors


def test_a_killed_process_ends_the_one_that_shares_its_photos_with_the_reason(
    photos: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    values["attack"]["steps"] = 4000
    out = tmp_path / "out"
    words = command(photos, out, values, "ensemble.layout=per_rank", "trainer.devices=2")
    process = start(words)
    wait_in_flight(process, out, groups=1)
    os.kill(other_rank(process), signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert "rank 1 was killed by signal 9" in errors and "Traceback" not in errors, errors
    assert in_flight(out) == 1, "the photo can be continued"


def test_losses_of_each_surrogate_are_logged(
    photos: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    values["trainer"].update(
        log_every_n_steps=1,
        logger={
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": str(tmp_path), "name": "log", "version": ""},
        },
    )
    one = [str(photos / "astronaut.png")]
    assert cloak(load_settings(values=values), photos=one, out=tmp_path / "out") == 0
    with (tmp_path / "log" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) >= 6, "one per step, and what Lightning adds at the end"
    for line in lines:
        parts = float(line["loss/cogvideox0"]) + 0.5 * float(line["loss/cogvideox1"])
        assert float(line["loss"]) == pytest.approx(parts, rel=1e-5)


def test_ranks_are_grouped_by_photos_and_by_model() -> None:
    places = [Placement(rank=rank, world=6, members=2) for rank in range(6)]
    assert [p.group for p in places] == [0, 0, 1, 1, 2, 2] and places[0].num_groups == 3
    assert [p.member for p in places] == [0, 1] * 3
    assert [p.leads for p in places] == [True, False] * 3
    assert places[3].peers == (2, 3) and places[3].replicas == (1, 3, 5)
    alone = Placement(rank=2, world=3)
    assert alone.peers == (2,) and alone.group == 2 and alone.leads


def spread(values: dict[str, Any], *words: str) -> Settings:
    return load_settings(values=values, overrides=["ensemble.layout=per_rank", *words])


def test_devices_that_cannot_be_grouped_are_refused_before_anything_starts(
    photos: Path, tmp_path: Path, values: dict[str, Any], tiny_checkpoint: Path
) -> None:
    with pytest.raises(ValueError, match=r"take 2 or 4 devices, or ensemble\.layout=turns"):
        settings = spread(values, "trainer.devices=3")
        cloak(settings, photos=[str(photos)], out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"take 2 devices"):
        cloak(spread(values), photos=[str(photos)], out=tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    # One surrogate on each device is what photos in parallel are anyway.
    assert placement_in(3, spread(fast_values(tiny_checkpoint)), 1).members == 1


def test_a_plan_counts_groups_of_devices(
    photos: Path, tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = spread(values, "trainer.devices=4", "attack.steps=100")
    monkeypatch.setattr(planning, "_seconds_of", lambda *asked: float(len(asked[-1])))
    made = plan(
        settings, photos=[str(photos)], out=tmp_path / "out", trial_steps=1, free_bytes=None
    )
    whole = plan(
        load_settings(values=values, overrides=["trainer.devices=2", "attack.steps=100"]),
        photos=[str(photos)], out=tmp_path / "out", trial_steps=1, free_bytes=None,
    )  # fmt: skip
    # Twice the devices for groups of two: as many photos at a time, each step with half the work.
    assert 0 < made.seconds == whole.seconds / 2


def test_only_what_changes_a_byte_is_part_of_the_identity(
    values: dict[str, Any], tiny_checkpoint: Path
) -> None:
    two = load_settings(values=values)
    assert two.digest() == spread(values).digest()
    assert two.digest() == load_settings(values=values, overrides=["ensemble.waiting=cpu"]).digest()
    other = load_settings(values=values, overrides=["ensemble.normalise=l2"])
    assert two.digest() != other.digest()
    # Alone there is nothing to schedule: folders of earlier versions stay what they are.
    one = load_settings(values=fast_values(tiny_checkpoint))
    assert "ensemble" not in one.identity() and "objectives" not in one.surrogates[0]


def test_terms_of_a_surrogate_are_resolved_and_checked(values: dict[str, Any]) -> None:
    own = load_settings(values=values).surrogates[1]["objectives"]
    assert own[1]["shallow_tap"] == "0" and own[0] == {
        "name": "denoising", "weight": 1.0, "normalise": "none",
    }  # fmt: skip
    values["surrogates"][1]["objectives"] = [{"name": "irc", "wieght": 1}]
    with pytest.raises(ValueError, match="Did you mean 'weight'"):
        load_settings(values=values)
    values["surrogates"][1]["objectives"] = {"name": "irc"}
    with pytest.raises(ValueError, match=r"surrogates\.objectives: expected a list"):
        load_settings(values=values)
