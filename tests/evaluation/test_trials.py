"""Clean clips of several frames of one photo, and sets of clips."""

from dataclasses import replace

from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.trials import Trials, alike
from tests.evaluation.rows import row as clip


def row(protection: str, frame: str, value: float, photo: str = "a") -> Result:
    return Result(
        photo=photo,
        protection=protection,
        purification="none",
        prompt="p",
        seed=0,
        identity=protection + frame + photo,
        figures={"x": value},
        generator="g",
        frame=frame,
    )


def test_clean_rows_of_every_frame_stay() -> None:
    rows = [
        row("clean", "", 1.0),
        row("clean", "64x64", 3.0),
        row("clean", "", 9.0, photo="b"),
        row("ours", "", 1.5),
        row("peer", "64x64", 7.0),
    ]
    for order in (rows, rows[::-1]):
        trials = Trials(order)
        assert trials.counts("g", "clean", "none").clips == 3
        assert trials.means(("g", "clean", "none"), "x") == {"a": 2.0, "b": 9.0}
        assert trials.to_clean(("g", "ours", "none"), "x") == {"a": 0.5}
        assert trials.to_clean(("g", "peer", "none"), "x") == {"a": 4.0}
        for name, value in (("ours", 1.0), ("peer", 3.0)):
            found = trials.clean_of("g", name, "none")
            assert [r.figures["x"] for r in found] == [value]


def test_purifications_that_did_the_same_are_told_by_the_latents_of_their_views() -> None:
    def rows(label: str, *shifts: float) -> list[Result]:
        made = [clip(photo, "ours", label, 0, 0.1) for photo in "ab"]
        return [
            replace(r, figures={**r.figures, "shift_own": s})
            for r, s in zip(made, shifts, strict=True)
        ]

    same = [*rows("facebook", 0.5, 0.6), *rows("jpeg", 0.5, 0.7), *rows("x", 0.5, 0.6)]
    labels = ["none", "facebook", "jpeg", "x"]
    assert alike(same, labels) == (("facebook", "x"),)
    assert alike(same[:-1], labels) == (), "a photo is not there yet"
    assert alike([clip("a", "ours", u, 0, 0.1) for u in labels], labels) == (), "nobody can tell"
    outcome = Outcome(alike=(("facebook", "x"),))
    assert outcome.distinct(labels[1:]) == " (2 of them distinct here)"
    assert outcome.distinct(["jpeg", "x"]) == ""
