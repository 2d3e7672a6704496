"""What SLURM decides about the Trainer, without a SLURM."""

from __future__ import annotations

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from anti_i2v_lit.lit.cluster import cluster_options, whereabouts
from anti_i2v_lit.lit.run import make_trainer
from anti_i2v_lit.settings import load_settings
from tests.slurm.test_environment import STEP


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_outside_slurm_nothing_is_decided() -> None:
    assert cluster_options({"devices": 2}) == {}


def test_tasks_become_devices_and_lightning_does_not_requeue(step: pytest.MonkeyPatch) -> None:
    found = cluster_options({})
    assert (found["devices"], found["num_nodes"]) == (2, 2)
    (environment,) = found["plugins"]
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue
    assert (whereabouts()["job"], whereabouts()["task"]) == ("31", 3)


def test_a_single_task_is_like_any_machine(step: pytest.MonkeyPatch) -> None:
    step.setenv("SLURM_NTASKS", "1")
    step.setenv("SLURM_NNODES", "1")
    assert isinstance(cluster_options({})["plugins"][0], LightningEnvironment)


def test_a_wrong_layout_is_refused_before_anything_is_loaded(
    step: pytest.MonkeyPatch, tmp_path: object
) -> None:
    settings = load_settings(overrides=["trainer.devices=3", "trainer.accelerator=cpu"])
    with pytest.raises(ValueError, match="--ntasks-per-node=3"):
        make_trainer(settings, tmp_path, [])  # type: ignore[arg-type]
