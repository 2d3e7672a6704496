import multiprocessing
import os
import signal
import socket
import time

import pytest

from anti_i2v_lit.archive.lock import FolderInUse, FolderLock, is_running, read_owner

FORK = multiprocessing.get_context("fork")


def _hold(folder, pipe):
    with FolderLock(folder):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold, args=(tmp_path, theirs))
    process.start()
    assert ours.poll(30) and ours.recv() == "held"
    yield process, ours
    process.kill()
    process.join(30)


def test_a_second_run_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    process, pipe = holder
    assert is_running(tmp_path)
    with pytest.raises(FolderInUse) as caught, FolderLock(tmp_path, wait_seconds=0):
        pass
    assert f"process {process.pid} on {socket.gethostname()}" in str(caught.value)
    assert "--out" in str(caught.value)
    pipe.send("end")
    process.join(30)
    assert not is_running(tmp_path)
    with FolderLock(tmp_path):
        assert read_owner(tmp_path).pid == os.getpid()
        assert is_running(tmp_path)


def test_kill_9_releases_the_lock(tmp_path, holder):
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    with FolderLock(tmp_path, wait_seconds=0):
        pass


def test_looking_does_not_release_the_lock_of_its_own_process(tmp_path):
    with FolderLock(tmp_path):
        assert is_running(tmp_path)
        read_owner(tmp_path)
        assert is_running(tmp_path)
        with pytest.raises(FolderInUse), FolderLock(tmp_path, wait_seconds=0):
            pass
    assert not is_running(tmp_path)


def _hold_and_fork(folder, pipe):
    with FolderLock(folder):
        sleeper = os.fork()
        if sleeper == 0:
            time.sleep(60)
            os._exit(0)
        pipe.send(sleeper)
        pipe.recv()


def test_a_forked_child_that_outlives_a_killed_run_does_not_hold_the_folder(tmp_path):
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold_and_fork, args=(tmp_path, theirs))
    process.start()
    assert ours.poll(30)
    sleeper = ours.recv()
    try:
        assert is_running(tmp_path)
        process.kill()
        os.waitpid(process.pid, 0)
        os.kill(sleeper, 0)
        with FolderLock(tmp_path):
            pass
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_nothing_there_is_not_running(tmp_path):
    assert not is_running(tmp_path) and read_owner(tmp_path) is None


def _race(folder, barrier, results):
    barrier.wait(30)
    try:
        with FolderLock(folder, wait_seconds=0):
            results.put("won")
            barrier.wait(30)
    except FolderInUse:
        results.put("refused")
        barrier.wait(30)


def test_of_racing_processes_one_wins(tmp_path):
    for turn in range(5):
        barrier, results = FORK.Barrier(3), FORK.Queue()
        folder = tmp_path / str(turn)
        racers = [FORK.Process(target=_race, args=(folder, barrier, results)) for _ in range(3)]
        for racer in racers:
            racer.start()
        answers = sorted(results.get(timeout=30) for _ in racers)
        for racer in racers:
            racer.join(30)
        assert answers == ["refused", "refused", "won"]
