"""Rates of pinned processes, read from the records of their runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anti_i2v_lit.bench.free_surrogate import offer
from anti_i2v_lit.bench.parallel import Round, pinned, rates, rates_apart, steady_rate, table


def test_the_rate_is_that_between_the_first_and_the_last_photo(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "time,event\n2026-03-01T10:00:00.000+00:00,step\n2026-03-01T10:05:00.000+00:00,cloaked\n"
        "2026-03-01T10:06:00.000+00:00,cloaked\n2026-03-01T10:07:00.000+00:00,cloaked\n"
    )
    assert steady_rate(path) == pytest.approx(60.0)
    path.write_text("time,event\n2026-03-01T10:05:00.000+00:00,cloaked\n")
    with pytest.raises(ValueError, match="two photos, 1"):
        steady_rate(path)


def test_the_table_says_whether_the_goal_was_reached() -> None:
    good = Round(alone=100.0, apart=(97.0, 97.0), together=(97.0, 95.0))
    assert good.efficiency == pytest.approx(0.96)
    assert good.against_apart == pytest.approx(192 / 194)
    assert "alone: median 96.0%; the goal of 95% is reached" in table([good], 0.1)
    shared = Round(alone=100.0, apart=(92.0, 90.0), together=(90.0, 91.0))
    text = table([shared], 0.1)
    assert "alone: median 90.5%; the goal of 95% is missed" in text
    assert "runs: median 99.5%; the goal of 95% is reached" in text


def test_each_rank_runs_on_its_core(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    wanted = [cores[-1], cores[0]]
    environment = pinned(tmp_path / "pin", wanted)
    ask = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    for rank, extra in enumerate([{}, {"LOCAL_RANK": "1"}]):
        text = subprocess.run(
            ask, env={**environment, **extra}, check=True, capture_output=True, text=True
        ).stdout
        assert text.strip() == str({wanted[rank]})


def test_runs_give_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", offer(tmp_path / "plugin"))
    words = ["surrogates.0.name=free", "objectives=[{name: ira_latent, direction: away}]"]
    words += ["attack.steps=2", "gate.min_psnr_db=0", "attack.num_verification_draws=1"]
    core = min(os.sched_getaffinity(0))
    (rate,) = rates_apart(tmp_path / "work", [core], 2, words)
    assert rate > 0
    with pytest.raises(ValueError, match=r"ended with 1:\n.*attack.steps"):
        rates(tmp_path / "again", [core], 2, ["attack.steps=0"])
