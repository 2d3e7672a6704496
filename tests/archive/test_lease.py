"""A lease goes on whatever the file server answers, and older claims leave nothing behind."""

import itertools
import os
import threading
import time

from anti_i2v_lit.archive import runs
from anti_i2v_lit.archive.claim_files import ClaimFiles
from anti_i2v_lit.archive.lock import Claims
from anti_i2v_lit.archive.runs import RunRecord, Workplace

PATIENCE_SECONDS = 1000  # only a machine that hangs takes as long


def test_a_run_keeps_its_lease_while_claims_are_asked_about_and_made(tmp_path, monkeypatch):
    with Claims(tmp_path) as claims:
        claims.claim([str(number) for number in range(20)])
        asked = []

        def head(unit, written_before, look=claims._files.head):
            if not asked:
                asked.append(unit)
                claims.claim(["made meanwhile"])
            return look(unit, written_before)

        monkeypatch.setattr(claims._files, "head", head)
        assert claims.still_held()


def test_what_could_not_be_asked_after_a_silence_is_asked_again(tmp_path, monkeypatch):
    answers = [OSError("no answer"), OSError("no answer"), None]
    asked = threading.Event()

    def on_silence():
        if (answer := answers.pop(0)) is not None:
            raise answer
        asked.set()

    record = RunRecord(tmp_path, Workplace(), 0.05, on_silence)
    monkeypatch.setattr(
        runs.time, "monotonic", itertools.chain([0.0], itertools.repeat(9.0)).__next__
    )
    with record:
        assert asked.wait(PATIENCE_SECONDS)
    assert answers == []


def test_leftovers_of_older_claims_go_with_the_next(tmp_path):
    files = ClaimFiles(tmp_path)
    for number in (1, 3, 5):
        files.make("unit", number, "a")
    place = next((tmp_path / ".anti_i2v" / "held").iterdir())
    for name, age_seconds in ((".old", 2 * 86_400), (".young", 0)):
        (place / name).write_bytes(b"")
        os.utime(place / name, (time.time() - age_seconds,) * 2)
    files.remove_below("unit", 5)
    assert sorted(os.listdir(place)) == [".young", "5"]
