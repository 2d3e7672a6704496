"""What is particular to a cluster, in one YAML file."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Site:
    """Settings of a cluster; every value may be left out.

    Attributes:
        partition: partition of all jobs; empty: the cluster's default.
        account: account that is charged.
        qos: quality of service.
        time: wall-clock limit of a job, as sbatch takes it; a job that reaches it is requeued.
        warning_seconds: time between SLURM's warning and the limit, s; must be longer than one
            step, one save and 60 s, because SLURM looks at its clock every 30 s.
        gpus_per_node: GPUs asked for on each node; 0: none.
        tasks_per_node: processes per node, one device each; 0: as many as GPUs, at least one.
        cpus_per_task: processors per process.
        memory: memory per node, such as "64G"; empty: the cluster's default.
        modules: environment modules to load.
        setup: shell lines run before the program, such as the activation of an environment.
        container: words put before the program, such as "apptainer exec --nv image.sif".
        max_restarts: how often a job may be started again before it gives up.
        directives: further options of sbatch, such as "--constraint=a100".
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = "04:00:00"
    warning_seconds: int = 180
    gpus_per_node: int = 1
    tasks_per_node: int = 0
    cpus_per_task: int = 4
    memory: str = ""
    modules: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    container: str = ""
    max_restarts: int = 1000
    directives: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")
        if self.gpus_per_node and self.tasks_per_node > self.gpus_per_node:
            raise ValueError(
                f"tasks_per_node={self.tasks_per_node} needs as many GPUs, one for each process, "
                f"but gpus_per_node={self.gpus_per_node}"
            )
        for option in self.directives:
            if not option.startswith("--") or "\n" in option:
                raise ValueError(f"directives: expected '--option=value', got {option!r}")

    @property
    def processes_per_node(self) -> int:
        """Processes per node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    def sbatch_options(self) -> list[str]:
        """Options of sbatch that hold for every job."""
        named = {
            "--partition": self.partition,
            "--account": self.account,
            "--qos": self.qos,
            "--time": self.time,
            "--mem": self.memory,
            "--cpus-per-task": self.cpus_per_task,
            "--gpus-per-node": self.gpus_per_node or "",
            "--signal": f"SIGUSR1@{self.warning_seconds}",
        }
        return [f"{k}={v}" for k, v in named.items() if v != ""] + self.directives

    def setup_lines(self) -> list[str]:
        """Shell lines before the program."""
        lines = [f"module load {shlex.quote(name)}" for name in self.modules] + list(self.setup)
        lines.append(f"export ANTI_I2V_MAX_RESTARTS={self.max_restarts}")
        return [*lines, f"export ANTI_I2V_CONTAINER={shlex.quote(self.container)}"]


_LOWEST = {
    "warning_seconds": 1,
    "gpus_per_node": 0,
    "tasks_per_node": 0,
    "cpus_per_task": 1,
    "max_restarts": 0,
}
_KINDS: dict[str, type[Any]] = {"str": str, "int": int, "list[str]": list}


def read_site(path: Path) -> Site:
    """Read a site file.

    Raises:
        ValueError: no such file, not YAML, an unknown or wrong value; names the nearest known one.
    """
    if not path.is_file():
        raise ValueError(f"--site: {path} is not a file; slurm/site.yaml is an example")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold names with values")
    known = {f.name: str(f.type) for f in dataclasses.fields(Site)}
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{path}: unknown name {name!r}.{hint} Known: {', '.join(known)}")
        _check_kind(path, str(name), value, known[name])
    try:
        return Site(**given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_kind(path: Path, name: str, value: Any, kind: str) -> None:
    wrong = not isinstance(value, _KINDS[kind]) or isinstance(value, bool)
    if isinstance(value, list):
        wrong = wrong or not all(isinstance(word, str) for word in value)
    if wrong:
        # YAML reads 12:00:00 as a number of seconds.
        hint = "; put it into quotes" if kind == "str" else ""
        raise ValueError(f"{path}: {name} must be {kind}, got {value!r}{hint}")
