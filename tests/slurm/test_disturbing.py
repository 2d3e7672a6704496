"""The soak's events: one counts once it had an effect. A scripted cluster stands in for SLURM."""

from __future__ import annotations

import datetime
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm import disturbing
from slurm.disturbing import OVER, Disturber
from slurm.local_cluster import ClusterError
from slurm.soak import Event, Result, report

JOB = "7"
RUN_TIME = datetime.timedelta(days=1, hours=2, minutes=3, seconds=4)


class Scripted:
    """Answers as SLURM does about one job; `effect` says what a command does to it."""

    def __init__(self, out: Path, effect: Callable[[Scripted, str], None]) -> None:
        self.out, self.effect = out, effect
        self.config = out / "slurm.conf"
        self.state, self.restarts = "RUNNING", 0
        self.commands: list[str] = []

    def run(self, *words: str, check: bool = True) -> str:
        text = " ".join(words)
        if words[0] == "squeue" or "show" in words:
            with (self.out / "manifest.jsonl").open("a") as manifest:
                manifest.write("{}\n")  # the work goes on
        if words[0] == "squeue":
            return f"{JOB} n1\n8 n2\n" if self.state == "RUNNING" else "8 n2\n"
        if "show" in words:
            return f"JobState={self.state} Restarts={self.restarts} RunTime=1-02:03:04"
        self.commands.append(text)
        try:
            self.effect(self, text)
        except ClusterError:
            if check:
                raise
        return ""

    def kill_node(self, name: str) -> None:
        self.run("kill", name)

    def start_node(self, name: str) -> None:
        self.commands.append(f"start {name}")

    def restart_controller(self) -> None:
        self.commands.append("restart")


def starts_again(cluster: Scripted, _command: str) -> None:
    cluster.restarts += 1


def does_nothing(_cluster: Scripted, _command: str) -> None:
    pass


def ends(cluster: Scripted, _command: str) -> None:
    cluster.state = "COMPLETED"


def is_refused(_cluster: Scripted, command: str) -> None:
    raise ClusterError(f"{command}: Invalid job id specified")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Time that passes by sleeping only."""
    found = SimpleNamespace(now=0.0)
    found.monotonic = lambda: found.now

    def sleep(seconds: float) -> None:
        found.now += seconds

    found.sleep = sleep
    monkeypatch.setattr(disturbing, "time", found)
    return found


def disturber(out: Path, effect: Any, mode: str = "array") -> Disturber:
    cluster: Any = Scripted(out, effect)
    return Disturber(cluster, JOB, mode, out, 64, random.Random(1))


COMMANDS = {
    "warning (scancel --signal)": "scancel --signal=USR1 7",
    "requeue by the operator": "scontrol requeue 7",
    "time limit": f"scontrol update jobid=7 timelimit={int(RUN_TIME.total_seconds()) // 60 + 1}",
    "node killed": "kill n1",
}


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("effect", [starts_again, does_nothing, ends, is_refused])
def test_an_event_counts_when_the_job_started_again(
    tmp_path: Path, clock: SimpleNamespace, kind: str, effect: Any
) -> None:
    found = disturber(tmp_path, effect)
    assert found._fire(kind) == (effect is starts_again)
    assert [event.kind for event in found.events] == [kind] * (effect is starts_again)
    commands = found.cluster.commands  # type: ignore[attr-defined]
    assert commands[0] == COMMANDS[kind]
    assert (commands[-1] == "start n1") == (kind == "node killed"), "a node never stays dead"
    assert clock.now < disturbing.EFFECT_SECONDS + 5


def test_the_time_limit_is_put_back(tmp_path: Path, clock: SimpleNamespace) -> None:
    found = disturber(tmp_path, starts_again)
    assert found._fire("time limit")
    found._due(0)
    found._due(0)
    put_back = [c for c in found.cluster.commands if c.endswith("timelimit=60")]  # type: ignore[attr-defined]
    assert put_back == ["scontrol update jobid=7 timelimit=60"]


def task(config: Path, index: int, step: str = "0") -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", "import time; time.sleep(600)", "cloak"]
    named = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index), "SLURM_STEP_ID": step}
    further = {"SLURM_PROCID": "3", "SLURM_CONF": str(config)}
    return subprocess.Popen(words, env={**os.environ, **named, **further})


def test_a_task_is_killed_for_real_and_only_when_one_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = disturber(tmp_path, does_nothing)
    assert not found._fire("kill -9 of a task") and found.events == []
    config = found.cluster.config
    others = [task(config, 2), task(config, 1, step="batch"), task(tmp_path / "another", 1)]
    wanted = task(config, 1)
    try:
        deadline = time.monotonic() + 300
        while not found._tasks("7_1") and time.monotonic() < deadline:
            time.sleep(0.05)  # until the new program has its environment
        assert found._tasks("7_1") == [(wanted.pid, "3")]
        monkeypatch.setattr(found, "_restarts", lambda _job: int(wanted.poll() is not None))
        assert found._kill_task("7_1", "n1") == "job 7_1, task 3"
        assert wanted.wait(300) == -9 and all(other.poll() is None for other in others)
    finally:
        for process in [*others, wanted]:
            process.kill()
            process.wait()


def test_every_event_is_tried_until_it_has_an_effect(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    tries: dict[str, int] = {}

    def at_the_second_try(cluster: Scripted, command: str) -> None:
        if command.endswith("timelimit=60"):
            return
        tries[command] = tries.get(command, 0) + 1
        cluster.restarts += tries[command] % 2 == 0
        if cluster.restarts == 8:
            cluster.state = "COMPLETED"

    found = disturber(tmp_path, at_the_second_try)
    found.kinds.pop("kill -9 of a task")
    found.run(10)
    assert len(found.events) == 10
    kinds = [event.kind for event in found.events]
    assert all(kinds.count(kind) == 2 for kind in found.kinds)
    assert tries == dict.fromkeys(COMMANDS.values(), 4)
    moments = [event.done for event in found.events]
    assert moments == sorted(moments) and len(set(moments)) == 10, "each after new progress"


def test_work_that_is_done_early_is_no_pass(tmp_path: Path, clock: SimpleNamespace) -> None:
    found = disturber(tmp_path, ends)
    found.kinds.pop("kill -9 of a task")
    found.run(10)
    events = f"{len(found.events)} of 10"
    assert len(found.events) < 10 and found.states() == ["COMPLETED"]
    facts: dict[str, Any] = {"mode": "array", "seconds": 1.0, "states": "1 COMPLETED"}
    counts = {"restarts": 0, "same_shards": 8, "rows": 64, "keys": 64, "findings": 0}
    short = Result(**facts, events=events, **counts)
    whole = Result(**facts, events="10 of 10", **counts)
    assert whole.good and not short.good
    assert not Result(**facts, events="10 of 10", **{**counts, "rows": 65}).good
    event = Event(mode="array", seconds=3.0, kind="k", target="t", done=5, in_flight="none")
    text = report([event], [short, whole], 1)
    assert text.count("| NO |") == 1 and text.count("| yes |") == 1
    assert "| array | 3 | k | t | 5 | none |" in text


def test_an_event_without_effect_does_not_go_on_for_ever(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    found = disturber(tmp_path, does_nothing)
    found.kinds = {"requeue by the operator": found._requeue}
    with pytest.raises(RuntimeError, match="had no effect"):
        found.run(1)
    assert found.events == [] and clock.now < 2 * disturbing.LIMIT_SECONDS


def test_a_job_that_never_ends_is_an_error(tmp_path: Path, clock: SimpleNamespace) -> None:
    found = disturber(tmp_path, does_nothing)
    with pytest.raises(RuntimeError, match="no end"):
        found.run(0)
    assert "RUNNING" not in OVER
