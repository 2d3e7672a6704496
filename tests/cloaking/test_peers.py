"""Three processes with a model each against one process with three: every bit the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from anti_i2v_lit.cloaking.peers import Alone
from tests.cloaking.sharing import alone

ROOT = Path(__file__).parents[2]
WORLD = 3


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cloaking.sharing", str(rank), str(WORLD), str(folder)],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=1000)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.parametrize("schedule", ["all", "round_robin", "sampled"])
def test_a_model_per_rank_gives_the_bits_of_one_process(
    ranks: list[dict[str, Any]], schedule: str
) -> None:
    expected = alone(schedule)
    for found in ranks:
        for name, value in expected["parameters"].items():
            assert torch.equal(found[schedule]["parameters"][name], value), name
        # Every rank knows the losses of all models, and the verdict on what the leader showed.
        assert found[schedule]["reports"] == expected["reports"]
        assert found[schedule]["judged"] == expected["judged"]


def test_a_failure_of_one_rank_is_raised_on_all_of_them(ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(ranks):
        told = rank < WORLD - 1
        prefix = "ValueError rank 2: " if told else "ValueError "
        failures = found["failures"]
        assert failures["value"] == f"{prefix}surrogate two did not load: no such folder"
        memory = "ValueError rank 2: MemoryError: too large" if told else "MemoryError too large"
        assert failures["memory"] == memory
        assert failures["number"] == "NonFiniteLoss no number at step 3 ('b.png',)"
        assert failures["after"] == "[0, 1, 2]", "they go on together"
        assert failures["wish"] == "(True, False)"


def test_alone_everything_is_its_own() -> None:
    peers = Alone()
    value = torch.ones(2)
    assert peers.leads and peers.together(lambda: 3) == [3]
    assert peers.gather(value)[0] is value and peers.from_leader(value) is value
    assert peers.any(True) and not peers.any(False)
    with pytest.raises(MemoryError):
        peers.together(_fail)


def _fail() -> None:
    raise MemoryError
