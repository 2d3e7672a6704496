"""Cloak folders in children that are killed (-9) at random moments until one gets through.

Usage: killed.py CHECKPOINT SEED KILLS PHOTOS OUT [KILLS PHOTOS OUT ...]. The children are forked,
so that a kill costs no imports. A life ends some random time after its first steps, and before its
seventh step in any case: how many lives the work takes does not depend on how fast the machine is.
Prints for each OUT "killed", the number of kills that hit a running child, and the last one's exit
status.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings, load_settings
from tests.conftest import fast_values

MOST_STEPS = 6


def child(settings: Settings, photos: str, out: str, steps: int | None) -> None:
    """Run and leave without Python's clean-up, which belongs to the parent.

    Args:
        settings: of the run.
        photos: what to cloak.
        out: output folder.
        steps: a pipe that gets a byte at the start and at every step; without one the child lives.
    """
    step, taken = CloakModule.training_step, 0

    def counted(self: CloakModule, group: object, batch_idx: int) -> object:
        nonlocal taken
        taken += 1
        assert steps is not None
        os.write(steps, b".")
        if taken > MOST_STEPS:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, group, batch_idx)  # type: ignore[arg-type]

    code = 1
    try:
        if steps is not None:
            os.write(steps, b".")
            CloakModule.training_step = counted  # type: ignore[method-assign, assignment]
        code = cloak(settings, photos=[photos], out=out)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def life(settings: Settings, photos: str, out: str, chance: random.Random, pace: float) -> bool:
    """One child that is killed; whether it still ran.

    Args:
        settings: of the run.
        photos: what to cloak.
        out: output folder.
        chance: decides when.
        pace: longest time, in seconds, from the last awaited step to the kill.
    """
    heard, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        child(settings, photos, out, told)
    os.close(told)
    with open(heard, "rb", buffering=0) as steps:
        for _ in range(chance.randint(1, MOST_STEPS)):
            steps.read(1)  # nothing comes from a child that is over
        time.sleep(chance.uniform(0, pace))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)  # the pipe is open until then: a step must not fail by it
    return os.WIFSIGNALED(status)


def main() -> int:
    """Kill, restart, and finish undisturbed."""
    checkpoint, seed, *places = sys.argv[1:]
    torch.set_num_threads(1)
    settings = load_settings(values=fast_values(checkpoint))  # type: ignore[arg-type]
    chance = random.Random(int(seed))
    for kills, photos, out in zip(*[iter(places)] * 3, strict=True):
        hits = 0
        while hits < int(kills) and life(settings, photos, out, chance, pace=0.1):
            hits += 1
        pid = os.fork()
        if pid == 0:
            child(settings, photos, out, None)
        _, status = os.waitpid(pid, 0)
        print("killed", hits, os.waitstatus_to_exitcode(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
