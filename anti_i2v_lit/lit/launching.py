"""Processes that rank 0 starts on its node, and what happens when one of them dies.

Lightning's own observer kills rank 0 with SIGKILL within five seconds, which may be before rank 0
has said what it lost. Here rank 0 has time to end by itself, and is ended with the reason if it
does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED

GRACE_SECONDS: Final = 30.0
# A process that was told to stop finishes its step; so does this one, if it was told as well.
_STOPPING_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 1.0
_LAST_WORDS_SECONDS: Final = 10.0


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
            Watch(self.procs).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **further)


class Watch(threading.Thread):
    """Ends this process when another rank failed and this one does not notice.

    It waits for `grace_seconds`, or for ten minutes where the other rank had been told to stop.
    The exit code is that of an interrupted run, since the same command continues it.

    Args:
        processes: ranks 1, 2, ... of this node.
        grace_seconds: time that this process has to end by itself.
    """

    def __init__(
        self, processes: Sequence[subprocess.Popen[Any]], grace_seconds: float = GRACE_SECONDS
    ) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self._processes, self._grace_seconds = processes, grace_seconds

    def run(self) -> None:
        """Look at the processes until one has failed or all are done."""
        while True:
            codes = [process.poll() for process in self._processes]
            failed = [code for code in codes if code]
            if failed:
                break
            if all(code == 0 for code in codes):
                return
            time.sleep(_POLL_SECONDS)
        told = all(code == EXIT_INTERRUPTED for code in failed)
        time.sleep(_STOPPING_SECONDS if told else self._grace_seconds)
        print(
            f"stopped: {fates(self._processes, wait_seconds=0)}, and rank 0 could not go on. What "
            "was done is kept: run the same command again to continue",
            file=sys.stderr,
            flush=True,
        )
        for process in self._processes:
            process.kill()
        os._exit(EXIT_INTERRUPTED)


def fates(
    processes: Sequence[subprocess.Popen[Any]], wait_seconds: float = _LAST_WORDS_SECONDS
) -> str:
    """How the ranks 1, 2, ... of this node ended, as far as they did; else nothing."""
    found = []
    for number, process in enumerate(processes, start=1):
        try:
            code = process.wait(timeout=wait_seconds)
        except subprocess.TimeoutExpired:
            continue
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        found.append(f"rank {number} {how}")
    return ", ".join(found)
