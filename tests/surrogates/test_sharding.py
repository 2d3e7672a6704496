"""Weights divided over two processes: exact gradients, and never more weights than promised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from anti_i2v_lit.checkpoints import COGVIDEOX, checkpoint_folder
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.sharding.units import large_buffers_become_parameters, units_of
from tests.surrogates.sharding_pair import PARITY

ROOT = Path(__file__).parents[2]
RUNS = [f"{name} {strategy}" for name, strategies in PARITY.items() for strategy in strategies]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> list[dict[str, Any]]:
    """What both processes measured."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(tiny_checkpoint, folder / "tiny")
    _in_float32(checkpoint_folder("embedded", COGVIDEOX), folder / "large")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tests.surrogates.sharding_pair"]
    processes = [
        subprocess.Popen([*words, str(r), str(folder)], cwd=ROOT, env=environment) for r in (0, 1)
    ]
    try:
        assert [process.wait(timeout=1000) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in (0, 1)]


def _in_float32(packaged: Path, folder: Path) -> None:
    """The packaged model as a checkpoint that needs no conversion."""
    shutil.copytree(packaged, folder)
    for file in folder.glob("*/diffusion_pytorch_model.safetensors"):
        save_file({k: v.float() for k, v in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.parametrize("run", RUNS)
def test_loss_and_input_gradient_are_those_of_the_whole_surrogate(
    pair: list[dict[str, Any]], run: str
) -> None:
    for found in (rank["parity"][run] for rank in pair):
        assert found["scale"] > 1e-3
        assert abs(found["loss"]) < 1e-5 and found["gradient"] < 1e-5
    gradients = [rank["parity"][run]["scale"] for rank in pair]
    assert gradients[0] != gradients[1], "each rank had its own photo"


@pytest.mark.parametrize("run", RUNS)
def test_a_rank_holds_its_half_at_every_moment(pair: list[dict[str, Any]], run: str) -> None:
    for found in (rank["parity"][run] for rank in pair):
        for moment in ("built", "forward", "backward", "evaluated"):
            memory = found["memory"][moment]
            assert memory["gathered"] == 0, moment
            assert memory["replicated"] < 0.01 * memory["whole"]
            # FSDP2 divides rows, of which some weights have an odd number.
            assert 0.49 < memory["shard"] / memory["whole"] < 0.52
        # The smallest of the miniatures has few blocks, of which one is a fifth of it.
        assert found["units"] > 15 and found["largest"] < memory["whole"] / 5


def test_the_graph_keeps_no_gathered_weight_alive(pair: list[dict[str, Any]]) -> None:
    """Every storage that was ever gathered is watched; a careless sharding shows what it takes."""
    for rank in pair:
        found, weights = rank["alive"], rank["alive"]["weights"]
        assert found["forward"] == found["backward"] == 0
        assert found["gathers"] > 100
        assert 0 < found["peak"] < weights / 7, "one unit at a time"
        assert rank["careless"]["forward"] > 0.4 * weights


@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_truncated_and_recomputed(pair: list[dict[str, Any]], strategy: str) -> None:
    for rank in pair:
        assert rank["checkpointed"]["recomputed"] < 1e-5
        found = rank["checkpointed"][strategy]
        assert abs(found["loss"]) < 1e-5 and found["gradient"] < 1e-5
        assert found["gathered"] == 0 and found["same_names"]
        assert found["blocks"] == [], "blocks after the deepest tap are not divided, but dropped"


@pytest.mark.parametrize("files", ["loading", "converting"])
@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_no_rank_ever_holds_the_whole_checkpoint(
    pair: list[dict[str, Any]], strategy: str, files: str
) -> None:
    """Nor do they where the files (the packaged ones, in float16) have another precision."""
    for rank in pair:
        found = rank[files][strategy]
        whole = found["memory"]["whole"]
        assert whole > 20e6
        assert found["peak"] < 0.8 * whole, found
        assert found["built"] < 0.3 * whole, found


@pytest.mark.parametrize("name", SURROGATES.names())
def test_units_cover_every_registered_surrogate(name: str) -> None:
    total = divided = 0
    for network in SURROGATES.load(name).tiny().modules:
        large_buffers_become_parameters(network)
        total += sum(p.numel() for p in network.parameters())
        parts = [p for unit in units_of(network) for p in unit.parameters]
        assert len(parts) == len({id(p) for p in parts}), "no weight is in two units"
        divided += sum(p.numel() for p in parts)
    assert divided >= 0.97 * total


def test_shared_weights_and_lone_tables_stay_whole() -> None:
    tied = nn.Linear(64, 64)
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(64, 64) for _ in range(9)])})
    network["head"] = nn.Sequential(tied, nn.Linear(64, 64))
    network["tail"] = nn.Sequential(tied, nn.Linear(64, 64))
    network.register_parameter("table", nn.Parameter(torch.zeros(64, 64)))
    network.register_buffer("positions", torch.zeros(4, 1024))
    large_buffers_become_parameters(network)
    divided = {id(p) for unit in units_of(network) for p in unit.parameters}
    assert len(divided) == 22
    assert not divided & {id(tied.weight), id(network.table), id(network.positions)}
    assert isinstance(network.positions, nn.Parameter) and not network.positions.requires_grad
