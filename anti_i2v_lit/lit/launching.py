"""Processes that rank 0 starts on its node, and what happens when one of them dies.

Lightning's own observer kills rank 0 with SIGKILL within five seconds, which may be before rank 0
has saved its photos and said what it lost. Here rank 0 is asked to stop, has time to end by itself,
and is ended with the reason if it does not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import lightning.pytorch as pl
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED

# Ranks that fail for one reason fail at about the same time, and each says so itself.
_BY_ITSELF_SECONDS: Final = 5.0
# Together with that within a minute, and longer than a pass waits for a lost rank (`sharded`).
_STOPPING_SECONDS: Final = 50.0
# A process that was told to stop finishes its step; so does this one.
_TOLD_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 1.0
_LAST_WORDS_SECONDS: Final = 5.0


class RankLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of one process per device, with `Watch` in place of its observer."""

    def launch(self, function: Callable[..., Any], *args: Any, **further: Any) -> Any:
        """Start the other ranks of this node unless the cluster did, then call the function."""
        further.pop("trainer", None)
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        watch = Watch(self.procs)
        watch.start()
        try:
            return function(*args, **further)
        finally:
            watch.dismiss()


class Watch(threading.Thread):
    """Stops this process when another of its node failed.

    First the process has some seconds to end by itself, then it is asked to stop by SIGTERM, and
    if it still runs after `stopping_seconds`, it is ended: it may wait for the other one for ever.
    The exit code is then that of an interrupted run, since the same command continues it.

    Args:
        processes: the others of this node, by their rank there; this one is the first.
        by_itself_seconds: time until it is asked.
        stopping_seconds: time from then on; ten minutes where the other had been told to stop.
    """

    def __init__(
        self,
        processes: Sequence[subprocess.Popen[Any]],
        *,
        by_itself_seconds: float = _BY_ITSELF_SECONDS,
        stopping_seconds: float = _STOPPING_SECONDS,
    ) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self._processes, self._over = processes, threading.Event()
        self._by_itself_seconds = by_itself_seconds
        self._stopping_seconds = stopping_seconds

    def dismiss(self) -> None:
        """The common work is over; how the others end concerns this process no longer."""
        self._over.set()

    def run(self) -> None:
        """Look at the processes until one has failed, all are done, or the work is over."""
        while not (failed := [code for p in self._processes if (code := p.poll())]):
            if all(process.poll() == 0 for process in self._processes):
                return
            if self._over.wait(_POLL_SECONDS):
                return
        if self._over.wait(self._by_itself_seconds):
            return
        self._say("this process is asked to stop as well")
        os.kill(os.getpid(), signal.SIGTERM)
        told = all(code == EXIT_INTERRUPTED for code in failed)
        if self._over.wait(_TOLD_SECONDS if told else self._stopping_seconds):
            return
        self._say("this process could not go on. What was done is kept: run the same command again")
        for process in self._processes:
            process.kill()
        os._exit(EXIT_INTERRUPTED)

    def _say(self, what: str) -> None:
        print(f"{fates(self._processes, wait_seconds=0)}; {what}", file=sys.stderr, flush=True)


def say_what_was_lost(trainer: pl.Trainer, error: Exception) -> None:
    """Print why this rank stops when another is gone.

    Args:
        trainer: of this rank.
        error: what this rank noticed.
    """
    launcher = trainer.strategy.launcher
    fate = fates(launcher.procs) if isinstance(launcher, RankLauncher) else ""
    print(
        f"stopped on rank {trainer.global_rank}: {error}; {fate or 'its own message says why'}. "
        "What was done is kept: run the same command again to continue",
        file=sys.stderr,
        flush=True,
    )


def fates(
    processes: Sequence[subprocess.Popen[Any]], wait_seconds: float = _LAST_WORDS_SECONDS
) -> str:
    """How the processes of this node ended, as far as they did within a time; else nothing."""
    found, deadline = [], time.monotonic() + wait_seconds
    for number, process in enumerate(processes, start=1):
        try:
            code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        found.append(f"local rank {number} {how}")
    return ", ".join(found)
