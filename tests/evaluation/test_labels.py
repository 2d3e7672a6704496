"""Rows belong to models; labels are what a run calls them."""

import dataclasses
from pathlib import Path

import pytest

from anti_i2v_lit.evaluation.concluding import conclude
from anti_i2v_lit.evaluation.gathering import gather
from tests.evaluation.fakes import write_noisy, write_photos
from tests.evaluation.test_workbench import NUM_CLIPS, Run, facts, whole


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write_noisy(write_photos(tmp_path / "photos", 3), tmp_path / "ours", 12)
    return tmp_path


def test_rows_follow_the_label_of_a_generator_that_was_renamed(folders, monkeypatch) -> None:
    values = {"seeds": [0], "gauntlet": ["none"]}
    first = whole(folders, monkeypatch, **values).outcome()
    renamed = [{"name": "cogvideox", "label": "new"}, {"name": "svd", "label": "b"}]
    again = Run(folders, generators=renamed, **values)
    assert not again.bench.missing()
    second = again.outcome()
    assert second.complete and second.exit_code == 0
    assert facts(second) == facts(first).replace("'a'", "'new'").replace(
        "(generator a)", "(generator new)"
    )
    assert {clip.generator for clip in second.clips} == {"new", "b"}


def test_two_labels_of_one_model_both_have_results(folders, monkeypatch) -> None:
    twice = [{"name": "cogvideox", "label": "one"}, {"name": "cogvideox", "label": "two"}]
    run = whole(folders, monkeypatch, generators=twice)
    assert run.generator.clips_made == NUM_CLIPS // 2, "the same clips"
    outcome = run.outcome()
    one, two = ([r for r in outcome.summary if r.generator == g] for g in ("one", "two"))
    assert repr([dataclasses.replace(r, generator="one") for r in two]) == repr(one)
    assert len(one) == 2 * 3 and {g.num_frames for g in outcome.generators} == {3}
    assert [t.generator for t in outcome.thresholds] == ["one", "two"]
    assert {v.generator for v in outcome.photos[0].verdicts} == {"", "one", "two"}
    kept = [(c.photo, c.protection, c.path) for c in outcome.clips if c.generator == "one"]
    assert kept == [(c.photo, c.protection, c.path) for c in outcome.clips if c.generator == "two"]


def test_a_generator_without_any_result_is_no_success(folders, monkeypatch) -> None:
    run = Run(folders, seeds=[0], gauntlet=["none"])
    run.work(monkeypatch, [("a", key) for key in run.plan.photos])
    found = gather(run.plan, run.bench.store, run.bench.records)
    more = {"further": run.bench.further, "failures": (), "clips": run.bench.store}
    outcome = conclude(run.plan, found, unfinished=False, **more)
    (problem,) = outcome.problems
    assert outcome.exit_code == 2 and "generator b" in problem.reason
    assert (problem.kind, problem.protection) == ("failed", "ours")
    assert outcome.protections[0].num_failed == 0, "no pair is at fault"
    assert conclude(run.plan, found, unfinished=True, **more).exit_code == 3
