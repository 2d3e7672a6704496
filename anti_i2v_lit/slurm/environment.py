"""What SLURM tells a task in environment variables, and whether it fits the devices asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

# Shells that people start under SLURM, to work in as on any other machine.
_INTERACTIVE = ("bash", "zsh", "sh", "interactive")
_EVEN = re.compile(r"^\d+(\(x\d+\))?$")


@dataclass(frozen=True, kw_only=True)
class SlurmTask:
    """One task of a SLURM job.

    Attributes:
        job_id: id of the job; for a task of an array, that task's own.
        array: "JOB_TASK" in an array, else empty.
        node: name of the node.
        rank: number of this task in its step.
        num_tasks: tasks in the step.
        num_nodes: nodes of the step.
        even: whether every node has as many tasks.
        stated_per_node: whether the job was given `--ntasks-per-node`.
        by_srun: whether srun started this task; a batch script's own processes are started once.
        restarts: how often SLURM has started the job again.
    """

    job_id: str
    array: str = ""
    node: str = ""
    rank: int = 0
    num_tasks: int = 1
    num_nodes: int = 1
    even: bool = True
    stated_per_node: bool = False
    by_srun: bool = True
    restarts: int = 0

    @property
    def name(self) -> str:
        """What `scontrol requeue` takes. Not the id: the last task of an array has the array's."""
        return self.array or self.job_id

    @property
    def tasks_per_node(self) -> int:
        """Tasks on each node."""
        return self.num_tasks // self.num_nodes

    def __str__(self) -> str:
        return f"job {self.name}, task {self.rank} of {self.num_tasks} on {self.node}"


def slurm_task(environment: Mapping[str, str] | None = None) -> SlurmTask | None:
    """This process as a task of a batch job; None outside SLURM and in an interactive shell.

    Args:
        environment: environment variables; those of the process by default.
    """
    env = os.environ if environment is None else environment
    if not env.get("SLURM_JOB_ID") or "SLURM_PROCID" not in env:
        return None
    if env.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    array = ""
    if env.get("SLURM_ARRAY_JOB_ID") and env.get("SLURM_ARRAY_TASK_ID"):
        array = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    per_node = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    return SlurmTask(
        job_id=env["SLURM_JOB_ID"],
        array=array,
        node=env.get("SLURMD_NODENAME", ""),
        rank=int(env["SLURM_PROCID"]),
        num_tasks=int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or 1),
        num_nodes=int(env.get("SLURM_STEP_NUM_NODES") or env.get("SLURM_NNODES") or 1),
        even=not per_node or bool(_EVEN.match(per_node)),
        stated_per_node="SLURM_NTASKS_PER_NODE" in env,
        by_srun=env.get("SLURM_STEP_ID", "").isdigit(),
        restarts=int(env.get("SLURM_RESTART_COUNT") or 0),
    )


def check_layout(task: SlurmTask, devices: object, num_nodes: object) -> tuple[int, int]:
    """Devices per node and nodes for the Trainer: one task per device, no other layout.

    Lightning checks little of this; with a wrong layout several tasks would do the same work, or
    most devices none, in silence.

    Args:
        task: this task.
        devices: `trainer.devices` (a number, a list of indices, or "auto"); None if not given.
        num_nodes: `trainer.num_nodes`; None if not given.

    Raises:
        ValueError: tasks and devices differ; says what to change.
    """
    if task.num_tasks > 1 and not task.by_srun:
        raise ValueError(
            f"the job has {task.num_tasks} tasks but the program was not started by srun, so only "
            "one of them would work: put `srun` before `anti-i2v` in the job's script"
        )
    if task.num_tasks > 1 and not task.stated_per_node:
        raise ValueError(
            f"the job has {task.num_tasks} tasks and no --ntasks-per-node: submit with --nodes=N "
            "--ntasks-per-node=DEVICES instead of --ntasks"
        )
    if not task.even or task.num_tasks % task.num_nodes:
        raise ValueError(
            f"the {task.num_tasks} tasks are spread unevenly over {task.num_nodes} nodes: submit "
            "with --nodes=N --ntasks-per-node=DEVICES"
        )
    found = task.tasks_per_node
    asked = len(devices) if isinstance(devices, list) else devices
    if asked not in (None, "auto", found, str(found)):
        raise ValueError(
            f"trainer.devices={devices}, but SLURM started {found} task(s) per node, and each "
            f"task works on one device: leave trainer.devices out, or submit with "
            f"--ntasks-per-node={asked}"
        )
    if num_nodes not in (None, task.num_nodes, str(task.num_nodes)):
        raise ValueError(
            f"trainer.num_nodes={num_nodes}, but the job runs on {task.num_nodes} node(s): leave "
            f"trainer.num_nodes out, or submit with --nodes={num_nodes}"
        )
    return found, task.num_nodes
