"""Really kill a process at a chosen line of the code under test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_ROOM = os.sep + os.path.join("anti_i2v_lit", "archive") + os.sep
# The files that touch the disk; a kill between two lines of pure arithmetic tells nothing new.
_WATCHED = tuple(_ROOM + name for name in ("files.py", "ledger.py", "in_flight.py"))


def run_and_kill_at_line(work: Callable[[], Any], line_number: int) -> bool:
    """Run `work` in a forked child and kill -9 it before its n-th line in those files.

    Returns whether the child was killed (False: it finished before that line).
    """
    child = os.fork()
    if child == 0:
        seen = 0

        def trace(frame: Any, event: str, _argument: Any) -> Any:
            nonlocal seen
            if not frame.f_code.co_filename.endswith(_WATCHED):
                return None
            if event == "line":
                seen += 1
                if seen == line_number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        code = 1
        try:
            sys.settrace(trace)
            work()
            sys.settrace(None)
            code = 0
        finally:
            os._exit(code)
    _, state = os.waitpid(child, 0)
    if os.WIFSIGNALED(state):
        assert os.WTERMSIG(state) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(state) == 0, "the child failed"
    return False
