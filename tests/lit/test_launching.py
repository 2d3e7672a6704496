"""A process whose other rank died ends with the reason, soon and by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
from anti_i2v_lit.lit import launching
from anti_i2v_lit.lit.launching import Watch, fates

LONG_SECONDS = 500.0  # only a machine that hangs takes as long


def rank_0(folder: Path, ended: str, waits: Callable[[Watch], None]) -> tuple[int, str, str]:
    """Exit code and output of a process that does nothing but watch another, which ends so.

    Args:
        folder: for the output.
        ended: Python program of the other rank.
        waits: what rank 0 does meanwhile.
    """
    out, errors = folder / "out", folder / "errors"
    pid = os.fork()  # what it needs is imported already
    if pid == 0:
        code = 1
        try:
            sys.stdout, sys.stderr = out.open("w"), errors.open("w")
            watch = Watch([subprocess.Popen([sys.executable, "-c", ended])], grace_seconds=0.2)
            watch.start()
            waits(watch)
            print("went on", flush=True)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), out.read_text(), errors.read_text()


def test_a_killed_rank_ends_rank_0_with_the_reason(tmp_path: Path) -> None:
    def in_a_collective_call(_: Watch) -> None:
        time.sleep(LONG_SECONDS)

    killed = "import os; os.kill(os.getpid(), 9)"
    code, shown, errors = rank_0(tmp_path, killed, in_a_collective_call)
    assert code == 3
    assert "rank 1 was killed by signal 9" in errors and shown == ""


def test_a_rank_that_has_done_its_work_ends_nobody(tmp_path: Path) -> None:
    done = rank_0(tmp_path, "pass", lambda watch: watch.join())
    assert done == (0, "went on\n", "")


def test_a_rank_that_was_told_to_stop_leaves_rank_0_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = threading.Event()

    def sleep(seconds: float) -> None:
        if seconds > LONG_SECONDS:
            patient.set()
            time.sleep(LONG_SECONDS)
        time.sleep(min(seconds, 0.05))

    monkeypatch.setattr(launching, "time", SimpleNamespace(sleep=sleep))
    stopped = f"raise SystemExit({EXIT_INTERRUPTED})"
    assert rank_0(tmp_path, stopped, lambda _: patient.wait(LONG_SECONDS) or os._exit(9)) == (
        0, "went on\n", "",
    )  # fmt: skip


def test_fates_name_the_ranks_that_ended() -> None:
    codes = ("raise SystemExit(7)", f"import time; time.sleep({LONG_SECONDS})")
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    processes[0].wait()
    assert fates(processes, wait_seconds=0) == "rank 1 ended with exit code 7"
    processes[1].kill()
    assert fates(processes).endswith("rank 2 was killed by signal 9")
