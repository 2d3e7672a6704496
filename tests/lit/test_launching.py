"""A process whose other rank died ends with the reason, soon and by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment

from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
from anti_i2v_lit.lit import launching
from anti_i2v_lit.lit.launching import RankLauncher, Watch, fates

LONG_SECONDS = 500.0  # only a machine that hangs takes as long
SHORT_SECONDS = 0.2
KILLED = "import os; os.kill(os.getpid(), 9)"


def rank_0(
    folder: Path,
    ended: str,
    waits: Callable[[Watch], None],
    *,
    by_itself_seconds: float = LONG_SECONDS,
    stopping_seconds: float = LONG_SECONDS,
    when_told: Callable[[], None] = lambda: None,
) -> tuple[int, str, str]:
    """Exit code and output of a process that does nothing but watch another, which ends so.

    Args:
        folder: for the output.
        ended: Python program of the other rank.
        waits: what rank 0 does meanwhile.
        by_itself_seconds: as for `Watch`.
        stopping_seconds: likewise.
        when_told: called when rank 0 is asked to stop.
    """
    out, errors = folder / "out", folder / "errors"
    pid = os.fork()  # what it needs is imported already
    if pid == 0:
        code = 1
        try:
            sys.stdout, sys.stderr = out.open("w"), errors.open("w")
            signal.signal(signal.SIGTERM, lambda *_: when_told())
            other = subprocess.Popen([sys.executable, "-c", ended])
            watch = Watch(
                [other], by_itself_seconds=by_itself_seconds, stopping_seconds=stopping_seconds
            )
            watch.start()
            waits(watch)
            print("went on", flush=True)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), out.read_text(), errors.read_text()


def test_a_killed_rank_ends_rank_0_with_the_reason(tmp_path: Path) -> None:
    code, shown, errors = rank_0(
        tmp_path,
        KILLED,
        lambda _: time.sleep(LONG_SECONDS),  # as in a collective call, which goes on
        by_itself_seconds=SHORT_SECONDS,
        stopping_seconds=SHORT_SECONDS,
    )
    assert (code, shown) == (EXIT_INTERRUPTED, "")
    assert errors.count("local rank 1 was killed by signal 9") == 2
    assert "asked to stop" in errors and "could not go on" in errors


def test_rank_0_is_asked_to_stop_and_saves(tmp_path: Path) -> None:
    asked = threading.Event()

    def saves(watch: Watch) -> None:
        while not asked.wait(0.05):
            pass
        watch.dismiss()

    code, shown, errors = rank_0(
        tmp_path, KILLED, saves, by_itself_seconds=SHORT_SECONDS, when_told=asked.set
    )
    assert (code, shown) == (0, "went on\n") and "asked to stop" in errors


def test_a_rank_that_has_done_its_work_ends_nobody(tmp_path: Path) -> None:
    done = rank_0(tmp_path, "pass", lambda watch: watch.join())
    assert done == (0, "went on\n", "")


def test_a_rank_that_fails_after_the_work_ends_nobody(tmp_path: Path) -> None:
    def works(watch: Watch) -> None:
        watch.dismiss()
        watch.join()

    assert rank_0(tmp_path, KILLED, works) == (0, "went on\n", "")


def test_a_rank_that_was_told_to_stop_leaves_rank_0_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(code: int) -> None:
        raise AssertionError(code)

    def saves_slowly(watch: Watch) -> None:
        monkeypatch.setattr(launching.os, "_exit", forbidden)
        watch.join(2.0)  # ten times what another rank would be given
        monkeypatch.undo()
        assert watch.is_alive()

    stopped = f"raise SystemExit({EXIT_INTERRUPTED})"
    code, shown, _ = rank_0(
        tmp_path,
        stopped,
        saves_slowly,
        by_itself_seconds=SHORT_SECONDS,
        stopping_seconds=SHORT_SECONDS,
    )
    assert (code, shown) == (0, "went on\n")


def test_the_watch_ends_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Watch] = []
    monkeypatch.setattr(Watch, "start", lambda self: started.append(self))
    # It would leave its variables in the environment, for whatever other tests start.
    monkeypatch.setattr(RankLauncher, "_call_children_scripts", lambda self: None)
    launcher = RankLauncher(LightningEnvironment(), 1, 1)

    def fails(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="7"):
        launcher.launch(fails, 7, trainer=None)
    assert started[0]._over.is_set()


def test_a_process_that_waits_for_a_lost_rank_ends_within_a_minute() -> None:
    parts = (launching._POLL_SECONDS, launching._BY_ITSELF_SECONDS, launching._STOPPING_SECONDS)
    assert sum(parts) < 60


def test_fates_name_the_ranks_that_ended() -> None:
    codes = ("raise SystemExit(7)", f"import time; time.sleep({LONG_SECONDS})")
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    processes[0].wait()
    assert fates(processes, wait_seconds=0) == "local rank 1 ended with exit code 7"
    processes[1].kill()
    assert fates(processes, LONG_SECONDS).endswith("local rank 2 was killed by signal 9")
