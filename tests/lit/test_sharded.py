"""Weights divided over two processes: the bytes of one, uneven photos, ends without a hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import load_settings
from tests.conftest import fast_values
from tests.lit.test_cloak_run import digests
from tests.lit.test_ensemble import command, other_checkpoint
from tests.lit.test_parallel import (
    PATIENCE_SECONDS,
    in_flight,
    other_rank,
    start,
    wait_in_flight,
)

__all__ = ["other_checkpoint"]


def losses(out: Path) -> dict[str, float]:
    rows = Ledger(out).rows()
    return {
        f"{k} {n}": v or 0.0
        for k, r in rows.items()
        for n, v in (("first", r.loss_first), ("last", r.loss_last))
    }


@pytest.fixture
def three(photo_folder: Path) -> Path:
    """Three photos, and a file that is none."""
    (photo_folder / "sub" / "turned.jpg").write_bytes(b"")
    return photo_folder


@pytest.fixture
def values(tiny_checkpoint: Path, other_checkpoint: Path) -> dict[str, Any]:
    """Two models, one of which is drawn per step; the second is truncated; one has an anchor."""
    found: dict[str, Any] = fast_values(tiny_checkpoint)
    found["ensemble"] = {"schedule": "sampled"}
    found["surrogates"] += [
        {
            "name": "cogvideox",
            "path": str(other_checkpoint),
            "weight": 0.5,
            "objectives": [{"name": "ira_denoiser"}],
        }
    ]
    return found


def test_uneven_photos_and_models_by_lot_on_two_processes_that_share_weights(
    three: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    """One rank substitutes while the other does its second photo; a bad file costs no pass."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert cloak(load_settings(values=values), photos=[str(three)], out=alone) == 2
    words = command(three, shared, values, "strategy=zero3", "trainer.devices=2")
    shown, errors = (process := start(words)).communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2, errors
    assert shown.count("3 cloaked, 0 refused, 1 failed") == 1
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-5)
    # Hooks change the order in which gradients are added, by a last bit; a sign may turn there.
    assert digests(shared).keys() == digests(alone).keys() and len(digests(shared)) == 3
    for row in Ledger(alone).rows().values():
        if row.status == "cloaked":
            one, other = (
                np.asarray(Image.open(out / row.output)).astype(int) for out in (alone, shared)
            )
            assert (one != other).mean() < 0.01, row.key
            assert np.abs(one - other).max() <= 4, row.key


def test_a_killed_process_ends_the_other_with_the_reason(
    three: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    values: dict[str, Any] = fast_values(tiny_checkpoint)
    values["attack"]["steps"] = 4000
    out = tmp_path / "out"
    process = start(command(three, out, values, "strategy=zero3", "trainer.devices=2"))
    wait_in_flight(process, out)
    os.kill(other_rank(process), signal.SIGKILL)
    # How soon is a sum of constants (test_launching), and then the interpreter's own end.
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert "rank 1 was killed by signal 9" in errors and "Traceback" not in errors
    assert in_flight(out) == 2, "both photos can be continued"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["strategy=zero3"], "there is one: set trainer.devices=2"),
        (["strategy=fsdp2", "trainer.devices=2", "ensemble.layout=per_rank"], "layout=turns"),
        (["strategy=zero3", "trainer.devices=2", "ensemble.waiting=cpu"], "strategy=zero3_offload"),
        (
            ["strategy=fsdp2", "trainer.devices=2", "surrogates.1.name=svd"],
            "cannot divide surrogate",
        ),
        (["strategy=zero3", "trainer.devices=2", "surrogates.0.compile=blocks"], "compile=none"),
        (["strategy=zero4"], "Did you mean 'zero3'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(
    words: list[str], reason: str, three: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=reason):
        settings = load_settings(values=values, overrides=words)
        cloak(settings, photos=[str(three)], out=tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_the_strategy_changes_no_byte_and_so_no_identity(values: dict[str, Any]) -> None:
    sharded = load_settings(values=values, overrides=["strategy=zero3", "trainer.devices=2"])
    assert sharded.digest() == load_settings(values=values).digest()
