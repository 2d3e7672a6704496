import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from anti_i2v_lit.archive import lock
from anti_i2v_lit.archive.claim_files import ClaimFiles
from anti_i2v_lit.archive.lock import FILES, Claims, FolderInUse, held_by, is_running, read_owner
from anti_i2v_lit.archive.runs import RunRecord, Workplace, runs_folder, sightings

FORK = multiprocessing.get_context("fork")
PATIENCE_SECONDS = 1000  # only a machine that hangs takes as long


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
    assert ours.poll(PATIENCE_SECONDS) and ours.recv() == "held"
    yield process, ours
    process.kill()
    process.join(PATIENCE_SECONDS)


def elsewhere(folder, units, place=None, age_seconds=0.0):
    """A run on another machine that claims units and falls silent; its record's path."""
    claims = Claims(folder, place)
    with claims:
        assert claims.claim(units) == {}
    path = runs_folder(folder) / f"{claims.owner.token}.json"
    owner = replace(claims.owner, host="elsewhere", space="another")
    path.write_text(json.dumps(asdict(owner)))
    when = int(time.time()) - age_seconds
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
        process.join(PATIENCE_SECONDS)
        assert claims.claim(["a", "b", "c"]) == {} and claims.alone()
        assert read_owner(tmp_path) == claims.owner
        assert held_by(tmp_path)[claims.owner.token] == ["a", "b", "c"]
    assert not is_running(tmp_path)


def test_what_a_killed_run_held_is_free_at_once(tmp_path, holder):
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_SECONDS)
    assert not is_running(tmp_path)
    with Claims(tmp_path) as claims:
        assert claims.claim(["a"]) == {}


def test_a_forked_child_that_outlives_a_killed_run_holds_nothing(tmp_path):
    def hold_and_fork(pipe):
        with Claims(tmp_path) as claims:
            claims.claim([FILES])
            sleeper = os.fork()
            if sleeper == 0:
                time.sleep(2 * PATIENCE_SECONDS)
                os._exit(0)
            pipe.send(sleeper)
            pipe.recv()

    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold_and_fork, args=(theirs,))
    process.start()
    assert ours.poll(PATIENCE_SECONDS)
    sleeper = ours.recv()
    try:
        process.kill()
        os.waitpid(process.pid, 0)
        os.kill(sleeper, 0)
        with Claims(tmp_path) as claims:
            assert claims.claim([FILES]) == {}
    finally:
        os.kill(sleeper, signal.SIGKILL)


class Clock:
    """The file server's time, which passes only while a run waits."""

    def __init__(self, monkeypatch, start):
        self.start = self.now = start
        stand_in = SimpleNamespace(sleep=self.sleep, monotonic=time.monotonic)
        monkeypatch.setattr(lock, "time", stand_in)
        monkeypatch.setattr(RunRecord, "touch", lambda record: self.now)

    def sleep(self, _seconds):
        self.now += 10

    @property
    def waited(self):
        return self.now - self.start


def test_a_silent_run_elsewhere_keeps_its_shards_until_its_lease_is_over(tmp_path, monkeypatch):
    last_sign = elsewhere(tmp_path, ["a"]).stat().st_mtime
    clock = Clock(monkeypatch, last_sign)
    with Claims(tmp_path, lease_seconds=120) as claims:
        assert not claims.alone()
        assert claims.claim(["b"]) == {} and clock.waited == 0
        assert claims.claim(["a"]) == {}
        assert clock.waited == 130, "the first look after the lease"


def test_a_run_elsewhere_that_gives_a_sign_of_life_keeps_its_shards(tmp_path):
    path = elsewhere(tmp_path, ["a"])

    def touch():
        while True:
            os.utime(path)
            time.sleep(0.02)

    process = FORK.Process(target=touch, daemon=True)
    process.start()
    try:
        with Claims(tmp_path, lease_seconds=PATIENCE_SECONDS) as claims:
            assert claims.claim(["a", "b"])["a"].host == "elsewhere"
    finally:
        process.kill()
        process.join(PATIENCE_SECONDS)


def test_a_long_silent_run_is_dead_to_a_bystander(tmp_path):
    elsewhere(tmp_path, ["a"], age_seconds=3600)
    assert not is_running(tmp_path)
    elsewhere(tmp_path, ["a"], age_seconds=5)
    assert is_running(tmp_path)


def test_a_job_that_slurm_started_again_takes_over_from_its_earlier_life_at_once(
    tmp_path, monkeypatch
):
    clock = Clock(monkeypatch, elsewhere(tmp_path, ["a"], Workplace(job="12_3")).stat().st_mtime)
    with Claims(tmp_path, Workplace(job="12_3", restart=1)) as claims:
        assert claims.claim(["a"]) == {} and clock.waited == 0


def test_a_run_that_was_suspended_learns_that_another_took_over(tmp_path):
    with Claims(tmp_path, lease_seconds=86_400) as slow:  # it beats no more during the test
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
        barrier.wait(PATIENCE_SECONDS)
        others = claims.claim(units)
        results.put(sorted(set(units) - set(others)))
        barrier.wait(PATIENCE_SECONDS)


def test_every_unit_goes_to_one_of_racing_processes(tmp_path):
    units = [f"{number}" for number in range(12)]
    for _ in range(4):  # the later turns take over from dead runs
        barrier, results = FORK.Barrier(3), FORK.Queue()
        order = [units, units[::-1], units[6:] + units[:6]]
        racers = [FORK.Process(target=_race, args=(tmp_path, barrier, results, o)) for o in order]
        for racer in racers:
            racer.start()
        got = [unit for _ in racers for unit in results.get(timeout=PATIENCE_SECONDS)]
        for racer in racers:
            racer.join(PATIENCE_SECONDS)
        assert sorted(got) == sorted(units)


class Looks:
    """What this process opens and lists; Python's audit events tell, and cannot be turned off."""

    def __init__(self):
        self.opened, self.listed, self.counting = 0, 0, False
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        if self.counting:
            self.opened += event == "open"
            self.listed += event in ("os.listdir", "os.scandir")

    def at(self, work):
        """Files opened and folders listed while `work` runs."""
        self.opened = self.listed = 0
        self.counting = True
        work()
        self.counting = False
        return self.opened, self.listed


@pytest.fixture(scope="session")
def looks():
    return Looks()


@pytest.mark.parametrize("state", ["free", "held by another run", "left by a dead run"])
def test_a_claim_costs_the_same_beside_10_claims_and_1000(tmp_path, looks, state):
    found = []
    for number in (10, 1000):
        folder = tmp_path / str(number)
        with Claims(folder) as other:
            others = [f"other {i}" for i in range(number)]
            other.claim(others if state == "free" else [*others, "mine"])
            if state == "left by a dead run":
                other.__exit__(None, None, None)
            with Claims(folder) as claims:
                found.append(looks.at(lambda c=claims: c.claim(["mine"])))
                held = "mine" in held_by(folder).get(claims.owner.token, [])
                assert held == (state != "held by another run")
    assert found[0] == found[1]
    assert found[0][0] <= 8 and found[0][1] <= 3


def test_thousands_of_units_in_one_call_cost_a_few_looks_each(tmp_path, looks):
    units = [f"shard-{number:06d}.tar" for number in range(2000)]
    with Claims(tmp_path) as claims:
        opened, listed = looks.at(lambda: claims.claim(units))
        assert opened <= 2 * len(units) + 4 and listed <= 2 * len(units) + 4
        assert claims.still_held()
        with Claims(tmp_path) as second:
            opened, _ = looks.at(lambda: second.claim(units))
            # Each claim once; who holds them is asked once, not once per unit.
            assert opened <= len(units) + 8


def _scramble(folder, barrier, results, number):
    """Claims units one at a time, in an order of its own; keeps them, or dies holding them."""
    chance = random.Random(number)
    units = [f"{unit}" for unit in range(40)]
    chance.shuffle(units)
    with Claims(folder) as claims:
        barrier.wait(PATIENCE_SECONDS)
        got = [unit for unit in units if not claims.claim([unit])]
        results.put(got)
        barrier.wait(PATIENCE_SECONDS)
        if number % 2:
            results.close()
            results.join_thread()
            os.kill(os.getpid(), signal.SIGKILL)


def test_many_processes_at_the_same_units_never_hold_one_twice(tmp_path):
    for turn in range(3):  # from the second one on, all units were held by runs now dead
        barrier, results = FORK.Barrier(8), FORK.Queue()
        racers = [
            FORK.Process(target=_scramble, args=(tmp_path, barrier, results, 8 * turn + number))
            for number in range(8)
        ]
        for racer in racers:
            racer.start()
        got = [unit for _ in racers for unit in results.get(timeout=PATIENCE_SECONDS)]
        for racer in racers:
            racer.join(PATIENCE_SECONDS)
        assert sorted(got) == sorted(f"{unit}" for unit in range(40))


def test_a_claim_that_is_half_written_is_waited_for_and_a_damaged_one_is_nobodys(
    tmp_path, monkeypatch
):
    with Claims(tmp_path, lease_seconds=120) as claims:
        ClaimFiles(tmp_path).make("a", 1, "somebody")
        (path,) = (tmp_path / ".anti_i2v" / "held").glob("*/1")
        path.write_bytes(b"")
        written = int(time.time())
        os.utime(path, (written, written))
        clock = Clock(monkeypatch, written)
        assert claims.claim(["a"]) == {}
        assert 120 <= clock.waited <= 130, "the first look after the lease"


def test_a_claim_that_cannot_be_read_is_not_taken(tmp_path):
    files = ClaimFiles(tmp_path)
    files.make("a", 1, "somebody")
    (path,) = (tmp_path / ".anti_i2v" / "held").glob("*/1")
    path.unlink()
    path.mkdir()  # reading a folder fails for root as well
    with Claims(tmp_path) as claims, pytest.raises(OSError):
        claims.claim(["a"])


def test_without_hard_links_claims_are_exclusive_as_well(tmp_path, monkeypatch):
    def refuse(*_words):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        assert first.claim(["a"]) == {}
        assert set(second.claim(["a", "b"])) == {"a"}
