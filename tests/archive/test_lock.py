import json
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import asdict, replace

import pytest

from anti_i2v_lit.archive.lock import FILES, Claims, FolderInUse, held_by, is_running, read_owner
from anti_i2v_lit.archive.runs import Workplace, runs_folder, sightings

FORK = multiprocessing.get_context("fork")


def _hold(folder, pipe):
    with Claims(folder) as claims:
        claims.claim(["a", "b"])
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


def elsewhere(folder, units, place=None, age_seconds=0.0):
    """A run on another machine that claims units and falls silent; its record's path."""
    claims = Claims(folder, place)
    with claims:
        assert claims.claim(units) == {}
    path = runs_folder(folder) / f"{claims.owner.token}.json"
    owner = replace(claims.owner, host="elsewhere", space="another")
    path.write_text(json.dumps(asdict(owner)))
    when = time.time() - age_seconds
    os.utime(path, (when, when))
    return path


def test_a_second_run_gets_what_is_left_and_hears_who_holds_the_rest(tmp_path, holder):
    process, pipe = holder
    assert is_running(tmp_path)
    with Claims(tmp_path) as claims:
        others = claims.claim(["a", "c"])
        assert set(others) == {"a"}
        assert f"process {process.pid} on {socket.gethostname()}" in str(others["a"])
        assert not claims.alone()
        assert held_by(tmp_path)[claims.owner.token] == ["c"]
        pipe.send("end")
        process.join(30)
        assert claims.claim(["a", "b", "c"]) == {} and claims.alone()
        assert read_owner(tmp_path) == claims.owner
        assert held_by(tmp_path)[claims.owner.token] == ["a", "b", "c"]
    assert not is_running(tmp_path)


def test_what_a_killed_run_held_is_free_at_once(tmp_path, holder):
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert not is_running(tmp_path)
    with Claims(tmp_path) as claims:
        assert claims.claim(["a"]) == {}


def test_a_forked_child_that_outlives_a_killed_run_holds_nothing(tmp_path):
    def hold_and_fork(pipe):
        with Claims(tmp_path) as claims:
            claims.claim([FILES])
            sleeper = os.fork()
            if sleeper == 0:
                time.sleep(60)
                os._exit(0)
            pipe.send(sleeper)
            pipe.recv()

    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold_and_fork, args=(theirs,))
    process.start()
    assert ours.poll(30)
    sleeper = ours.recv()
    try:
        process.kill()
        os.waitpid(process.pid, 0)
        os.kill(sleeper, 0)
        with Claims(tmp_path) as claims:
            assert claims.claim([FILES]) == {}
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_a_silent_run_elsewhere_keeps_its_shards_until_its_lease_is_over(tmp_path):
    elsewhere(tmp_path, ["a"])
    began = time.monotonic()
    with Claims(tmp_path, lease_seconds=1.5) as claims:
        assert not claims.alone()
        assert claims.claim(["a"]) == {}
    assert 1.0 < time.monotonic() - began < 10


def test_a_run_elsewhere_that_gives_a_sign_of_life_keeps_its_shards(tmp_path):
    path = elsewhere(tmp_path, ["a"])

    def touch():
        time.sleep(0.7)
        os.utime(path)

    process = FORK.Process(target=touch)
    process.start()
    with Claims(tmp_path, lease_seconds=30) as claims:
        assert claims.claim(["a", "b"])["a"].host == "elsewhere"
    process.join(30)


def test_a_long_silent_run_is_dead_to_a_bystander(tmp_path):
    elsewhere(tmp_path, ["a"], age_seconds=3600)
    assert not is_running(tmp_path)
    elsewhere(tmp_path, ["a"], age_seconds=5)
    assert is_running(tmp_path)


def test_a_job_that_slurm_started_again_takes_over_from_its_earlier_life_at_once(tmp_path):
    elsewhere(tmp_path, ["a"], Workplace(job="12_3"))
    began = time.monotonic()
    with Claims(tmp_path, Workplace(job="12_3", restart=1)) as claims:
        assert claims.claim(["a"]) == {}
    assert time.monotonic() - began < 5


def test_a_run_that_was_suspended_learns_that_another_took_over(tmp_path):
    with Claims(tmp_path) as slow:
        slow.claim(["a"])
        assert slow.still_held()
        path = runs_folder(tmp_path) / f"{slow.owner.token}.json"
        path.write_text(json.dumps(asdict(replace(slow.owner, host="elsewhere"))))
        os.utime(path, (1, 1))
        with Claims(tmp_path) as quick:
            assert quick.claim(["a"]) == {}
            assert quick.still_held() and not slow.still_held()


def test_only_one_run_starts_at_a_time(tmp_path):
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        late = pytest.raises(FolderInUse, match="is starting")
        with first.starting(), late, second.starting(0.2):
            pass
        with second.starting(0.2):
            pass


def test_nothing_there_is_not_running(tmp_path):
    assert not is_running(tmp_path) and read_owner(tmp_path) is None
    assert sightings(tmp_path) == [] and held_by(tmp_path) == {}


def test_a_damaged_record_is_no_run(tmp_path):
    with Claims(tmp_path) as claims:
        claims.claim(["a"])
        (runs_folder(tmp_path) / f"{claims.owner.token}.json").write_text("{")
        assert sightings(tmp_path) == []


def _race(folder, barrier, results, units):
    with Claims(folder) as claims:
        barrier.wait(30)
        others = claims.claim(units)
        results.put(sorted(set(units) - set(others)))
        barrier.wait(30)


def test_every_unit_goes_to_one_of_racing_processes(tmp_path):
    units = [f"{number}" for number in range(12)]
    for _ in range(4):  # the later turns take over from dead runs
        barrier, results = FORK.Barrier(3), FORK.Queue()
        order = [units, units[::-1], units[6:] + units[:6]]
        racers = [FORK.Process(target=_race, args=(tmp_path, barrier, results, o)) for o in order]
        for racer in racers:
            racer.start()
        got = [unit for _ in racers for unit in results.get(timeout=30)]
        for racer in racers:
            racer.join(30)
        assert sorted(got) == sorted(units)
