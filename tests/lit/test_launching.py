"""A process whose other rank died ends with the reason, soon and by itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from anti_i2v_lit.lit.launching import fates

# `ended` is how the other rank ends; rank 0 sleeps as one that waits in a collective call does.
_RANK_0 = """
import subprocess, sys, time
from anti_i2v_lit.lit.launching import Watch
other = subprocess.Popen([sys.executable, "-c", {ended!r}])
Watch([other], grace_seconds=0.5).start()
time.sleep({patience})
print("went on")
"""


def rank_0(ended: str, patience: float) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(_RANK_0.format(ended=ended, patience=patience))
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_killed_rank_ends_rank_0_with_the_reason() -> None:
    done = rank_0("import os; os.kill(os.getpid(), 9)", patience=60)
    assert done.returncode == 3
    assert "rank 1 was killed by signal 9" in done.stderr and "went on" not in done.stdout


@pytest.mark.parametrize(
    ("ended", "patience"),
    [("pass", 3.0), ("raise SystemExit(3)", 3.0)],
    ids=["all was done", "told to stop, so rank 0 may still save"],
)
def test_a_rank_that_ended_in_order_ends_nobody(ended: str, patience: float) -> None:
    done = rank_0(ended, patience)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr


def test_fates_name_the_ranks_that_ended() -> None:
    codes = ("raise SystemExit(7)", "import time; time.sleep(60)")
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    processes[0].wait()
    assert fates(processes, wait_seconds=0) == "rank 1 ended with exit code 7"
    processes[1].kill()
    assert fates(processes).endswith("rank 2 was killed by signal 9")
