"""Photos are dealt by claims: each is worked on by one process, and all of them by somebody."""

from pathlib import Path

import pytest

from anti_i2v_lit.archive.lock import Claims
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.lit.evaluating import Stop, Units, _trainer
from tests.evaluation.fakes import write_noisy, write_photos
from tests.evaluation.test_workbench import Run


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
