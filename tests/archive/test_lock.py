import multiprocessing
import os
import signal
import socket
import time

import pytest

from anti_i2v_lit.archive.lock import FolderInUse, FolderLock, is_running, read_owner

FORK = multiprocessing.get_context("fork")


def _hold(folder, held, go_on):
    with FolderLock(folder):
        held.set()
        go_on.wait(60)


@pytest.fixture
def holder(tmp_path):
    held, go_on = FORK.Event(), FORK.Event()
    process = FORK.Process(target=_hold, args=(tmp_path, held, go_on))
    process.start()
    assert held.wait(30)
    yield process, go_on
    go_on.set()
    process.join(30)


def test_a_second_run_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    process, go_on = holder
    assert is_running(tmp_path)
    with pytest.raises(FolderInUse) as caught, FolderLock(tmp_path, wait_seconds=0):
        pass
    assert f"process {process.pid} on {socket.gethostname()}" in str(caught.value)
    assert "--out" in str(caught.value)
    go_on.set()
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


def test_a_forked_child_that_outlives_the_run_does_not_hold_the_folder(tmp_path):
    lock = FolderLock(tmp_path)
    with lock:
        child = FORK.Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with FolderLock(tmp_path, wait_seconds=0):
            pass
    finally:
        child.kill()
        child.join()


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
    for turn in range(10):
        barrier, results = FORK.Barrier(3), FORK.Queue()
        folder = tmp_path / str(turn)
        racers = [FORK.Process(target=_race, args=(folder, barrier, results)) for _ in range(3)]
        for racer in racers:
            racer.start()
        answers = sorted(results.get(timeout=30) for _ in racers)
        for racer in racers:
            racer.join(30)
        assert answers == ["refused", "refused", "won"]
