"""Cloak a folder in children that are killed (-9) at random moments until one gets through.

Usage: killed.py CHECKPOINT PHOTOS OUT KILLS SEED LONGEST. The children are forked, so that a kill
costs no imports, and live for LONGEST seconds at most; prints the number of kills that hit a
running child, the last one's exit status, and the seconds that it took.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import load_settings
from tests.conftest import fast_values


def child(settings: object, photos: str, out: str) -> None:
    """Run to the end and leave without Python's clean-up, which belongs to the parent."""
    code = 1
    try:
        code = cloak(settings, photos=[photos], out=out)  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Kill, restart, and finish undisturbed."""
    checkpoint, photos, out, kills, seed, longest = sys.argv[1:]
    torch.set_num_threads(1)
    settings = load_settings(values=fast_values(checkpoint))  # type: ignore[arg-type]
    chance = random.Random(int(seed))
    hits = 0
    while hits < int(kills):
        pid = os.fork()
        if pid == 0:
            child(settings, photos, out)
        time.sleep(chance.uniform(0.05, float(longest)))
        finished, _ = os.waitpid(pid, os.WNOHANG)
        if finished:
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        hits += 1
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(settings, photos, out)
    _, status = os.waitpid(pid, 0)
    print(hits, os.waitstatus_to_exitcode(status), time.monotonic() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
