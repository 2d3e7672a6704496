import io
import os
import signal
import stat
import subprocess
import sys

import pytest

from anti_i2v_lit.slurm.environment import SlurmTask
from anti_i2v_lit.slurm.requeue import MAX_RESTARTS, leave
from anti_i2v_lit.slurm.signals import StopRequest

TASK = SlurmTask(job_id="9", array="8_1", node="n1", restarts=3)


@pytest.fixture(autouse=True)
def handlers():
    """Put the handlers of the test process back."""
    numbers = (signal.SIGUSR1, signal.SIGTERM)
    earlier = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, earlier, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A program of that name that notes its words; returns where it notes them."""
    notes, program = tmp_path / "notes", tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {notes}\nexit "${{SCONTROL_CODE:-0}}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return notes


def left(received, **environment):
    waited, errors = [], io.StringIO()
    leave(TASK, received, environment=environment, wait=waited.append, errors=errors)
    return waited, errors.getvalue()


def test_the_first_signal_is_remembered():
    request = StopRequest()
    request.install()
    assert request.received is None
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert request.received == signal.SIGUSR1


def test_work_that_does_not_look_is_interrupted_once_and_only_while_it_lasts():
    request = StopRequest()
    request.install()
    begun = []
    with pytest.raises(KeyboardInterrupt), request.interrupting():
        begun.append("work")
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            begun.append("more work")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            begun.append("way out")
    assert begun == ["work", "way out"] and request.received == signal.SIGUSR1
    with pytest.raises(KeyboardInterrupt), request.interrupting():
        begun.append("too late to begin")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert begun[-1] == "way out"


def test_after_the_warning_the_job_requeues_itself_and_waits_for_its_end(scontrol):
    waited, said = left(signal.SIGUSR1)
    assert scontrol.read_text() == "requeue 8_1\n"
    assert waited and "saved, asking for its requeueing" in said


def test_after_sigterm_slurm_decides(scontrol):
    waited, _ = left(signal.SIGTERM)
    assert waited and not scontrol.exists()


def test_an_interrupt_by_hand_ends_at_once(scontrol):
    waited, _ = left(None)
    assert not waited and not scontrol.exists()


def test_a_job_does_not_restart_for_ever(scontrol):
    waited, said = left(signal.SIGUSR1, **{MAX_RESTARTS: "3"})
    assert not waited and not scontrol.exists()
    assert "3 times" in said and "submit it again" in said


def test_a_refused_requeue_is_reported(scontrol, monkeypatch):
    monkeypatch.setenv("SCONTROL_CODE", "1")
    waited, said = left(signal.SIGUSR1)
    assert not waited and "`scontrol requeue 8_1` failed" in said


def test_without_scontrol_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, said = left(signal.SIGUSR1)
    assert "bind SLURM's programs into the container" in said


def test_the_command_line_and_job_scripts_need_no_torch_and_listen_from_the_start():
    program = (
        "import os, signal, sys\n"
        "import anti_i2v_lit.cli.main as main\n"
        "import anti_i2v_lit.slurm.submit, anti_i2v_lit.slurm.jobs\n"
        "import anti_i2v_lit.cli.submit_verb\n"
        "main.main(['--version'])\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('torch' in sys.modules, main.REQUEST.received == signal.SIGUSR1)\n"
    )
    environment = {**os.environ, "SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "x"}
    shown = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[-2:] == ["False", "True"]
