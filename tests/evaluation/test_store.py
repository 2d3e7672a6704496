"""Rows and clips that come back as they were, and clips that a crash has left damaged."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anti_i2v_lit.evaluation.journal import NotWritten
from anti_i2v_lit.evaluation.store import Result, ResultStore
from tests.evaluation.test_journal import at_most


def result(identity: str, **figures: float) -> Result:
    return Result(
        photo="p",
        protection="ours",
        purification="none",
        prompt="x",
        seed=0,
        identity=identity,
        figures=figures,
        by_frame={name: (value, 1.0) for name, value in figures.items()},
    )


def test_figures_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    made = result("a", high=math.inf, low=-math.inf, none=math.nan, some=0.25)
    ResultStore(tmp_path).append([made, result("b", some=1.0)])
    store = ResultStore(tmp_path)
    assert repr(store.find("a")) == repr(made) and store.find("b") == result("b", some=1.0)


def test_a_clip_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (done.append("sync"), sync(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("replace"), replace(*a)))
    store = ResultStore(tmp_path)
    clip = torch.arange(48.0).view(1, 3, 4, 4) / 47
    store.save_clip("c", clip, clip[0])
    assert done == ["sync", "replace", "sync"]  # the folder last
    kept = load_file(store.clip_path("c"))
    assert torch.equal(kept["frames"], (clip * 255).round().byte())
    assert torch.equal(kept["picture"], kept["frames"][0])
    loaded = store.load_clip("c")
    assert loaded is not None and torch.equal(loaded, kept["frames"] / 255)


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_damaged_clip_counts_as_absent(tmp_path: Path, left: int) -> None:
    store = ResultStore(tmp_path)
    store.save_clip("c", torch.rand(2, 3, 8, 8))
    assert store.has_clip("c")
    path = store.clip_path("c")
    path.write_bytes(path.read_bytes()[:left])
    assert not store.has_clip("c") and store.load_clip("c") is None
    assert not store.has_clip("d") and store.load_clip("d") is None


def test_a_clip_that_does_not_fit_leaves_the_former_one(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.save_clip("c", torch.ones(1, 3, 8, 8))
    with at_most(100), pytest.raises(NotWritten):
        store.save_clip("c", torch.zeros(1, 3, 8, 8))
    loaded = store.load_clip("c")
    assert loaded is not None and bool((loaded == 1).all())
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["c.safetensors"]
