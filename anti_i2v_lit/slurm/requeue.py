"""Leaving a job in the middle: asking SLURM to start it again, or waiting for SLURM's decision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from anti_i2v_lit.slurm.environment import SlurmTask
from anti_i2v_lit.slurm.signals import WARNING

MAX_RESTARTS = "ANTI_I2V_MAX_RESTARTS"
_DEFAULT_RESTARTS = 1000
# Longer than any site's grace time: whoever waits is killed by SLURM, not by this.
_WAIT_SECONDS = 900.0
# The controller may just be starting again itself.
_TRIES, _PAUSE_SECONDS, _SCONTROL_SECONDS = 6, 10.0, 30.0


def leave(
    task: SlurmTask,
    received: int | None,
    *,
    environment: Mapping[str, str] | None = None,
    wait: Callable[[float], None] = time.sleep,
    errors: TextIO | None = None,
) -> None:
    """End an interrupted task so that its job continues, now that all is saved.

    After the warning the job asks for its own requeueing. After anything else (preemption without
    a warning, scancel) SLURM has decided already, and a job that ends by itself meanwhile counts
    as completed and is never started again: so this waits to be killed.

    Args:
        task: this task.
        received: the signal that interrupted it; None if it was none that SLURM sends.
        environment: environment variables; those of the process by default.
        wait: sleeps for some seconds.
        errors: where to report; standard error by default.
    """
    env = os.environ if environment is None else environment
    stream = sys.stderr if errors is None else errors
    if received == WARNING:
        limit = int(env.get(MAX_RESTARTS) or _DEFAULT_RESTARTS)
        # Said before it is asked for: SLURM may end the job, and its output, at once.
        print(f"{task}: saved, asking for its requeueing", file=stream, flush=True)
        problem = _requeue(task, limit)
        if problem:
            print(f"{task}: not requeued: {problem}", file=stream, flush=True)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to save
    elif received is not None:
        print(f"{task}: saved, waiting for SLURM to end the job", file=stream, flush=True)
    else:
        return
    wait(_WAIT_SECONDS)


def _requeue(task: SlurmTask, limit: int) -> str:
    """Ask for it; returns what is in the way."""
    if task.restarts >= limit:
        return (
            f"it was started again {task.restarts} times already ({MAX_RESTARTS}={limit}); "
            "if it makes progress, submit it again"
        )
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        problem = _ask(["scontrol", "requeue", task.name])
        if "contact" not in problem:
            break
    return problem


def _ask(words: list[str]) -> str:
    """Run a command of SLURM's; returns what went wrong."""
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=_SCONTROL_SECONDS)
    except FileNotFoundError:
        return "scontrol not found (bind SLURM's programs into the container); submit it again"
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(words)}` failed: {error.stderr.strip()}; submit it again"
    except subprocess.TimeoutExpired:
        return "cannot contact the controller; submit the job again"
    return ""
