"""Stands in for `anti-i2v` in jobs: counts steps instead of cloaking, and imports no torch.

Its words: a verb, then options; `steps=N`, `code=N`, `dies=N` (kill -9 of rank 0 at that step of
its first life), `holds=N` (the first life stays at that step until it is told to stop or killed)
among the photos say what it does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from anti_i2v_lit.slurm.environment import SlurmTask, slurm_task
from anti_i2v_lit.slurm.requeue import leave
from anti_i2v_lit.slurm.signals import REQUEST


def option(words: list[str], name: str, default: str) -> str:
    return words[words.index(name) + 1] if name in words else default


def cloak(words: list[str], task: SlurmTask) -> int:
    out = Path(option(words, "--out", ""))
    out.mkdir(parents=True, exist_ok=True)
    part = option(words, "--part", "all").replace("/", "of")
    facts = dict(word.split("=") for word in words if "=" in word)
    path = out / f"part-{part}-rank-{task.rank}"
    lives = path.read_text().splitlines() if path.exists() else []
    step = int(lives[-1].split()[-1]) if lives else 0
    first, last = step, int(facts.get("steps", 3))
    while step < last:
        if REQUEST.received is not None:
            if task.rank == 0:
                leave(task, REQUEST.received)
            return 3 if task.rank == 0 else 0
        time.sleep(0.1)
        if task.restarts == 0 and step == int(facts.get("holds", -1)):
            continue
        step += 1
        life = f"restarts {task.restarts} on {task.node} from {first} to {step}"
        whole = path.with_name(f"{path.name}.new")  # a kill may come at any moment
        whole.write_text("\n".join([*lives, life]))
        whole.replace(path)
        if task.rank == task.restarts == 0 and step == int(facts.get("dies", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
    (out / f"done-{part}-{task.rank}").touch()
    return int(facts.get("code", 0))


def main(words: list[str]) -> int:
    task = slurm_task()
    assert task is not None
    REQUEST.install()
    if words[0] == "cloak":
        return cloak(words, task)
    if words[0] == "shard":
        out = Path(option(words, "--out", ""))
        out.mkdir(parents=True, exist_ok=True)
        if "forgets=1" not in words:
            (out / "index.json").write_text("{}")
        return 1 if "fails=1" in words else 0
    if words[0] == "status":
        return 0 if list(Path(words[1]).glob("done-*")) else 2
    Path(words[1], "verified").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
