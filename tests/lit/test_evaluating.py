"""Photos are dealt by claims: each is worked on by one process, and all of them by somebody."""

import errno
from contextlib import ExitStack
from pathlib import Path

import pytest

from anti_i2v_lit.archive.lock import Claims
from anti_i2v_lit.cli.evaluate_verb import _what_is_missing
from anti_i2v_lit.evaluation.failures import FailureLog
from anti_i2v_lit.evaluation.journal import NotWritten
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.lit.evaluating import EvaluationModule, Stop, Units, _summed_up, _trainer
from tests.evaluation.fakes import write_noisy, write_photos
from tests.evaluation.test_workbench import Run

SMALL = {
    "metrics": [],
    "gauntlet": ["none"],
    "seeds": [0],
    "report": {"photos": 0, "charts": 0},
    "statistics": {"resamples": 10},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_noisy(write_photos(tmp_path / "photos", 4), tmp_path / "ours", 9)
    return tmp_path


def test_two_processes_never_take_the_same_photo(folder: Path) -> None:
    first, second = Run(folder).bench, Run(folder).bench
    rows = folder / "out" / "rows"
    taken = []
    with Claims(rows) as one, Claims(rows) as two:
        streams = [
            iter(Units(first, one, Stop(), (0, 2))),
            iter(Units(second, two, Stop(), (1, 2))),
        ]
        for _ in range(4):
            taken += [next(stream) for stream in streams]
        assert [next(stream, None) for stream in streams] == [None, None]
    assert sorted(taken) == sorted(first.missing()) and len(set(taken)) == 8
    # The second process begins in the middle, so that neither waits for the other.
    assert taken[0] == ("a", "photo0.png") and taken[1] == ("a", "photo2.png")


def test_what_is_done_is_not_yielded_and_a_stop_ends_the_stream(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(folder)
    run.work(monkeypatch, run.bench.missing()[:3])
    stop = Stop()
    with Claims(folder / "out" / "rows") as claims:
        stream = iter(Units(Run(folder).bench, claims, stop, (0, 1)))
        assert next(stream) == ("a", "photo3.png")
        stop.requested = True
        assert next(stream, None) is None


def test_trainer_settings_are_lightnings() -> None:
    settings = load_evaluation_settings(
        values={"trainer": {"accelerator": "cpu", "max_epochs": 3, "colour": 1}}
    )
    with pytest.raises(ValueError, match="colour"):
        _trainer(settings, Stop())
    alone = load_evaluation_settings(values={"trainer": {"accelerator": "cpu"}})
    assert _trainer(alone, Stop()).world_size == 1


def test_what_another_run_holds_is_no_interruption(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = Run(folder, **SMALL), folder / "out"
    theirs = [("a", "photo3.png"), ("b", "photo3.png")]
    run.work(monkeypatch, [unit for unit in run.bench.missing() if unit not in theirs])
    failures = FailureLog(out / "rows")
    with Claims(out / "rows") as other:
        other.claim(["a photo3.png", "b photo3.png"])
        outcome = _summed_up(run.bench, failures, out, 0.0)
        assert (outcome.exit_code, outcome.complete, outcome.elsewhere) == (3, False, 2)
        assert "still working on 2 of the photos" in (out / "report.html").read_text()
        run.work(monkeypatch, [theirs[0]])
        assert _summed_up(run.bench, failures, out, 0.0).elsewhere == 1
    outcome = _summed_up(run.bench, failures, out, 0.0)
    assert (outcome.exit_code, outcome.complete, outcome.elsewhere) == (3, False, 0)
    assert "It was interrupted" in (out / "report.html").read_text()
    run.work(monkeypatch, [theirs[1]])
    outcome = _summed_up(run.bench, failures, out, 0.0)
    assert outcome.complete and outcome.exit_code == 0


def test_an_interruption_stays_one_while_others_work(folder: Path) -> None:
    run, out = Run(folder, **SMALL), folder / "out"
    with Claims(out / "rows") as other:
        other.claim(["a photo3.png"])
        outcome = _summed_up(run.bench, FailureLog(out / "rows"), out, 0.0)
    assert outcome.exit_code == 3 and outcome.elsewhere == 0


def test_a_full_disk_ends_the_run_and_an_odd_photo_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(folder)
    rows = folder / "out" / "rows"
    failures = FailureLog(rows)
    module = EvaluationModule(run.bench, failures, ExitStack())
    error: Exception = NotWritten(errno.ENOSPC, "No space left on device", "rows.jsonl")

    def refuse(key: str, label: str) -> None:
        raise error

    monkeypatch.setattr(run.bench, "work", refuse)
    with pytest.raises(OSError, match="No space left on device"):
        module.predict_step(("a", "photo0.png"), 0)
    assert not (rows / "failures.jsonl").exists()
    error = RuntimeError("odd")
    module.predict_step(("a", "photo0.png"), 0)
    assert "odd" in (rows / "failures.jsonl").read_text()


def test_claims_are_given_back_before_the_ranks_meet(folder: Path) -> None:
    events: list[str] = []
    held = ExitStack()
    held.callback(events.append, "given back")
    module = EvaluationModule(Run(folder).bench, FailureLog(folder / "out" / "rows"), held)
    trainer = Meeting(events)
    module.trainer = trainer  # type: ignore[assignment]
    module.on_predict_end()
    assert events == ["given back", "met"]


class Meeting:
    """A trainer whose ranks meet."""

    def __init__(self, events: list[str]) -> None:
        self.strategy, self._events = self, events

    def barrier(self, name: str) -> None:
        self._events.append("met")


def test_the_verb_says_what_is_missing() -> None:
    assert "another run is still working on 2 of the photos" in _what_is_missing(2)
    assert _what_is_missing(0).startswith("interrupted")
