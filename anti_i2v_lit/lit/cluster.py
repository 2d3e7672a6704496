"""Lightning on SLURM: one task per device, and none of Lightning's own requeueing.

That works inside a signal handler, loses signals and resumes from files which this package does
not use.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from anti_i2v_lit.archive.runs import Workplace
from anti_i2v_lit.slurm.environment import check_layout, slurm_task


def cluster_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the Trainer that SLURM decides; none outside a batch job.

    Args:
        given: `trainer.*` of the settings.

    Raises:
        ValueError: the job's tasks and the devices asked for differ.
    """
    task = slurm_task()
    if task is None:
        return {}
    devices, num_nodes = check_layout(task, given.get("devices"), given.get("num_nodes"))
    # Named, not detected: Lightning goes by the job's name, and by variables that a batch script
    # has too.
    alone = task.num_tasks == 1
    environment = LightningEnvironment() if alone else SLURMEnvironment(auto_requeue=False)
    listed = given.get("devices")
    return {
        "devices": listed if isinstance(listed, list) else devices,
        "num_nodes": num_nodes,
        "plugins": [environment, *(given.get("plugins") or [])],
    }


def workplace(trainer: pl.Trainer) -> Workplace:
    """Where this run takes place, for its record."""
    task = slurm_task()
    return Workplace(
        job=task.name if task is not None else "",
        restart=task.restarts if task is not None else 0,
        devices=int(trainer.world_size),
        accelerator=trainer.strategy.root_device.type,
    )


def whereabouts() -> dict[str, Any]:
    """Node, job, task and time, stored beside the progress of photos for `status`."""
    task = slurm_task()
    return {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "job": task.name if task is not None else "",
        "task": task.rank if task is not None else int(os.environ.get("LOCAL_RANK", "0")),
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
