"""The whole way from folders to an outcome, with a generator whose clips are known beforehand."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.evaluation import clip_sets, workbench
from anti_i2v_lit.evaluation.concluding import conclude
from anti_i2v_lit.evaluation.facts import (
    HELD_OUT,
    NOT_A_CLOAK,
    NOT_JUDGED,
    UNKNOWN,
    WHITE_BOX,
)
from anti_i2v_lit.evaluation.further import build_further
from anti_i2v_lit.evaluation.gathering import gather
from anti_i2v_lit.evaluation.gauntlet import Entry
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.outcome_file import read_outcome, write_outcome
from anti_i2v_lit.evaluation.plan import CLEAN, NOISE, make_plan
from anti_i2v_lit.evaluation.records import RecordStore
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.evaluation.store import ResultStore
from anti_i2v_lit.evaluation.workbench import Stopped, Workbench, parts_of
from tests.evaluation.fakes import FadingGenerator, fake_judge, write_noisy, write_photos

VALUES = {
    "generators": [{"name": "cogvideox", "label": "a"}, {"name": "svd", "label": "b"}],
    "seeds": [0, 1],
    "gauntlet": ["none", {"name": "jpeg", "severity": 0.5}],
    "metrics": ["lightness", "motion", "clip_i"],
    "batch_size": 4,
    "statistics": {"resamples": 200},
}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    photos = write_photos(tmp_path / "photos", 3)
    write_noisy(photos, tmp_path / "ours", 12)
    return tmp_path


class Run:
    """One process of an evaluation of `photos` and `ours` with a fading generator."""

    def __init__(self, folder: Path, out: str = "out", **values: object) -> None:
        self.generator = FadingGenerator()
        self.stop_after = 10**9
        settings = load_evaluation_settings(values={**VALUES, **values})
        judge, further = fake_judge(), build_further(settings.metric_nodes(), None)
        self.out = folder / out
        self.plan = make_plan(
            settings,
            clean=folder / "photos",
            cloaked={"ours": folder / "ours"},
            out=self.out,
            parts=parts_of(judge, further),
        )
        self.bench = Workbench(
            self.plan,
            store=ResultStore(self.out / "rows"),
            records=RecordStore(self.out / "rows"),
            judge=judge,
            further=further,
            stopping=lambda: self.generator.clips_made >= self.stop_after,
        )

    def work(self, monkeypatch: pytest.MonkeyPatch, units=None) -> None:
        monkeypatch.setattr(workbench, "build_generator", lambda node, device: self.generator)
        for label, key in units or self.bench.missing():
            self.bench.work(key, label)

    def outcome(self) -> Outcome:
        self.bench.store.refresh()
        self.bench.records.refresh()
        found = gather(self.plan, self.bench.store, self.bench.records)
        return conclude(
            self.plan,
            found,
            further=self.bench.further,
            failures=(),
            clips=self.bench.store,
            unfinished=bool(self.bench.missing()),
        )


def whole(folder: Path, monkeypatch: pytest.MonkeyPatch, out: str = "out", **values: object) -> Run:
    run = Run(folder, out, **values)
    run.work(monkeypatch)
    return run


# photos x generators x purifications x (clean and cloak with two seeds each, noise with one)
NUM_CLIPS = 3 * 2 * 2 * (2 + 2 + 1)


def test_every_clip_is_made_once_and_the_outcome_is_whole(folders, monkeypatch) -> None:
    run = whole(folders, monkeypatch)
    assert run.generator.clips_made == NUM_CLIPS
    outcome = run.outcome()
    assert outcome.complete and outcome.exit_code == 0
    assert len(outcome.generators) == 2 and outcome.generators[0].view_size == (24, 24)
    assert [p.label for p in outcome.purifications] == ["none", "jpeg at 0.5"]
    row = next(r for r in outcome.summary if r.protection == "ours" and r.purification == "none")
    assert (row.counts.photos, row.counts.prompts, row.counts.seeds) == (3, 1, 2)
    assert row.estimates["clip_lpips"].count == 3
    names = {r.protection for r in outcome.summary}
    assert names == {CLEAN, "ours", NOISE + "ours"}
    assert {a.name for a in outcome.absent} == {"clip_i"}
    assert "hf download" in outcome.absent[0].reason
    assert all(math.isfinite(f.figures["lightness"]) for p in outcome.photos for f in p.files)
    assert {c.protection for c in outcome.clips} == {CLEAN, "ours"}
    assert all((run.out / clip.path).is_file() for clip in outcome.clips)
    assert len(list((run.out / "rows" / "clips").iterdir())) == 2 * 2 * 3
    write_outcome(outcome, run.out)
    assert repr(read_outcome(run.out)) == repr(outcome)


def test_visibility_of_a_file_is_that_of_its_pixels(folders, monkeypatch) -> None:
    outcome = whole(folders, monkeypatch).outcome()
    for photo in outcome.photos:
        pixels = [
            np.asarray(Image.open(folders / f / photo.key), float) for f in ("photos", "ours")
        ]
        difference = pixels[1] - pixels[0]
        file = photo.files[0]
        assert file.residual_rms_8bit == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-5)
        expected = 10 * np.log10(255**2 / (difference**2).mean())
        assert file.figures["psnr"] == pytest.approx(expected, abs=1e-3)


def test_a_stopped_run_goes_on_without_redoing_work(folders, monkeypatch) -> None:
    reference = whole(folders, monkeypatch)
    first = Run(folders, out="other")
    first.stop_after = 13
    with pytest.raises(Stopped):
        first.work(monkeypatch)
    assert first.outcome().exit_code == 3
    lines = folders / "other" / "rows" / "results.jsonl"
    with lines.open("a") as file:
        file.write('{"photo": "torn')
    first.bench.store._journal.close()
    second = Run(folders, out="other")
    second.work(monkeypatch)
    assert first.generator.clips_made + second.generator.clips_made == NUM_CLIPS
    assert facts(second.outcome()) == facts(reference.outcome())


def facts(outcome: Outcome) -> str:
    """What may not depend on how the work was done; figures to 6 digits."""
    parts = (outcome.summary, outcome.worst, outcome.heat, outcome.photos, outcome.noise_limits)
    return repr(parts)


def test_two_processes_and_another_batch_size_change_nothing(folders, monkeypatch) -> None:
    alone = whole(folders, monkeypatch)
    first, second = Run(folders, out="two"), Run(folders, out="two", batch_size=3)
    units = first.bench.missing()
    first.work(monkeypatch, units[::2])
    second.work(monkeypatch, units[1::2][::-1])
    assert first.generator.clips_made + second.generator.clips_made == NUM_CLIPS
    assert sorted(p.name for p in (folders / "two" / "rows").glob("results*")) == [
        "results-1.jsonl",
        "results.jsonl",
    ]
    one, both = alone.outcome(), first.outcome()
    assert both.complete
    for a, b in zip(one.summary, both.summary, strict=True):
        assert (a.generator, a.protection, a.purification) == (
            b.generator,
            b.protection,
            b.purification,
        )
        for column, estimate in a.estimates.items():
            assert b.estimates[column].mean == pytest.approx(estimate.mean, abs=1e-5, nan_ok=True)


def test_a_swapped_file_is_not_a_cloak_and_fails(folders, monkeypatch) -> None:
    original = (folders / "photos" / "photo1.png").read_bytes()
    (folders / "ours" / "photo1.png").write_bytes(original)
    outcome = whole(folders, monkeypatch).outcome()
    assert outcome.exit_code == 2
    (problem,) = outcome.problems
    assert (problem.kind, problem.photo) == ("swapped", "photo1.png")
    verdict = next(p for p in outcome.photos if p.key == "photo1.png").verdicts[0]
    assert verdict.verdict == NOT_A_CLOAK and "byte for byte" in verdict.reason
    assert "photo1.png" in outcome.headline[0]
    assert next(r for r in outcome.summary if r.protection == "ours").counts.photos == 2


def test_another_photos_cloak_is_found_by_its_picture(folders, monkeypatch) -> None:
    other = (folders / "ours" / "photo2.png").read_bytes()
    (folders / "ours" / "photo0.png").write_bytes(other)
    outcome = whole(folders, monkeypatch).outcome()
    assert outcome.exit_code == 2
    (problem,) = outcome.problems
    assert problem.kind == "swapped" and "it shows photo2.png" in problem.reason


def test_a_missing_or_broken_file_leaves_the_others_alone(folders, monkeypatch) -> None:
    (folders / "ours" / "photo0.png").unlink()
    (folders / "ours" / "photo1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    outcome = whole(folders, monkeypatch, noise={"seeds": 2}).outcome()
    assert outcome.exit_code == 2
    assert {p.kind for p in outcome.problems} == {"missing", "unreadable"}
    verdicts = {p.key: p.verdicts[0].verdict for p in outcome.photos}
    assert verdicts["photo0.png"] == verdicts["photo1.png"] == NOT_JUDGED
    assert verdicts["photo2.png"] not in (NOT_JUDGED, NOT_A_CLOAK)


def test_a_peers_square_at_another_size_is_compared_with_the_same_part(
    tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "photos"
    (path,) = write_photos(folder, 1, side=96)
    whole_picture = Image.open(path)
    whole_picture.resize((144, 96)).save(path)  # wider than high
    square = Image.open(path).crop((24, 0, 120, 96)).resize((64, 64))
    noisy = np.asarray(square, int) + np.random.default_rng(0).integers(-9, 10, (64, 64, 3))
    (tmp_path / "ours").mkdir()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "ours" / "x_photo0_9.png")
    outcome = whole(tmp_path, monkeypatch).outcome()
    (photo,) = outcome.photos
    assert outcome.exit_code == 0 and photo.files[0].pairing == "its name holds the photo's"
    assert photo.files[0].frame == pytest.approx((24 / 144, 0, 120 / 144, 1), abs=0.01)
    assert photo.files[0].counterpart.startswith("64x64")
    # Nobody says which models a peer's folder was computed against.
    facts_of_it = outcome.protections[0]
    assert (facts_of_it.white_box, facts_of_it.told_by) == ((), "")
    assert {w.knowledge for w in outcome.worst} == {h.knowledge for h in outcome.heat} == {UNKNOWN}
    assert {v.knowledge for v in photo.verdicts} == {UNKNOWN}
    assert "white-box result cannot be excluded" in photo.verdicts[0].reason
    assert all("a white-box result cannot be excluded" in line for line in outcome.headline)


def test_what_the_user_says_of_a_folder_counts_and_held_out_models_lead(folders, monkeypatch):
    outcome = whole(folders, monkeypatch, surrogates={"ours": ["a", "other"]}, seeds=[0]).outcome()
    (protection,) = outcome.protections
    assert protection.told_by == "user" and protection.surrogates == ("cogvideox:", "other")
    assert [g.label for g in outcome.generators] == ["b", "a"]
    assert [w.knowledge for w in outcome.worst] == [HELD_OUT, WHITE_BOX]
    assert {p.verdicts[0].knowledge for p in outcome.photos} == {HELD_OUT}
    assert outcome.headline[0].startswith("ours, held-out generator b")


def calibrated(outcome: Outcome) -> str:
    return repr([(t.generator, t.value, t.method, t.own, t.others, t.num_people)
                 for t in outcome.thresholds])  # fmt: skip


def test_thresholds_follow_the_present_photos_and_gauntlet(folders, monkeypatch) -> None:
    """A resumed run that compares other people, on other clips, ends as one that began so."""
    one = VALUES["generators"][:1]
    values = {"generators": one, "identity": {"min_people": 2, "fallback": {"dlib": 0.99995}}}
    whole(folders, monkeypatch, out="grown", **values)
    turned = {**values, "gauntlet": VALUES["gauntlet"][::-1]}
    resumed = whole(folders, monkeypatch, out="grown", **turned)
    # Clean clips of another purification, one per photo and seed, and the cloak's that is shown.
    assert resumed.generator.clips_made == 3 * 2 + 3
    assert calibrated(resumed.outcome()) == calibrated(
        whole(folders, monkeypatch, out="new", **turned).outcome()
    )
    more = write_photos(folders / "photos", 5)
    write_noisy(more, folders / "ours", 12)
    resumed = whole(folders, monkeypatch, out="grown", **turned)
    assert resumed.generator.clips_made == 2 * 2 * (2 + 2 + 1)
    fresh = whole(folders, monkeypatch, out="fresh", **turned).outcome()
    assert fresh.thresholds[0].others.count == 5
    assert calibrated(resumed.outcome()) == calibrated(fresh)
    assert resumed.outcome().complete


def test_another_metric_of_files_makes_no_clip(folders, monkeypatch) -> None:
    values = {"generators": VALUES["generators"][:1], "gauntlet": ["none"], "seeds": [0]}
    first = whole(folders, monkeypatch, **values, metrics=["motion"])
    assert all("lightness" not in f.figures for p in first.outcome().photos for f in p.files)
    second = Run(folders, **values, metrics=["lightness", "motion"])
    assert len(second.bench.missing()) == 3 and second.outcome().exit_code == 3
    second.work(monkeypatch)
    outcome = second.outcome()
    assert second.generator.clips_made == 0 and outcome.complete
    assert all(f.figures["lightness"] > 0 for p in outcome.photos for f in p.files)
    assert "lightness" in {column.name for column in outcome.columns}


def test_a_metric_with_settings_of_its_own_is_a_figure_of_its_own(folders, monkeypatch) -> None:
    node = {"name": "photo_lpips", "frames": "first", "label": "first_frame"}
    values = {"generators": VALUES["generators"][:1], "gauntlet": ["none"], "seeds": [0]}
    run = whole(folders, monkeypatch, **values, metrics=[node])
    rows = gather(run.plan, run.bench.store, run.bench.records).results
    for row in rows:
        assert row.figures["first_frame"] == pytest.approx(row.by_frame["photo_lpips"][0], abs=1e-5)
        assert row.figures["first_frame"] != pytest.approx(row.figures["photo_lpips"], rel=1e-3)
    (column,) = [c for c in run.outcome().columns if c.name == "first_frame"]
    assert column.title.endswith("[frames=first]") and column.better == "higher"


def test_long_clips_are_chained_and_curves_follow_them(folders, monkeypatch) -> None:
    outcome = whole(folders, monkeypatch, long_clip_chains=2).outcome()
    curve = next(c for c in outcome.curves if c.figure == "photo_lpips" and c.protection == CLEAN)
    assert len(curve.points) == 9 and curve.chain_length == 3
    assert outcome.generators[0].num_frames == 9
    # A fading clip that goes on from its last frame fades on: the photo is never less lost.
    values = [point.mean for point in curve.points]
    assert values[8] > values[0]


KEEP_ALL = {"clips": {"keep": "all"}}


def test_clips_to_be_kept_are_made_after_a_run_that_dropped_them(folders, monkeypatch) -> None:
    whole(folders, monkeypatch)
    second = Run(folders, **KEEP_ALL)
    assert second.bench.missing() and second.outcome().exit_code == 3
    second.work(monkeypatch)
    rows = second.out / "rows"
    assert len(list((rows / "clips").iterdir())) == 3 * 2 * 2 * (2 + 2)
    assert len((rows / "results.jsonl").read_text().splitlines()) == NUM_CLIPS
    assert second.outcome().complete
    third = Run(folders, **KEEP_ALL)
    third.work(monkeypatch)
    assert third.generator.clips_made == 0


def test_a_figure_of_sets_is_absent_where_a_clip_is(folders, monkeypatch) -> None:
    run = whole(folders, monkeypatch, **KEEP_ALL, generators=VALUES["generators"][:1])
    further = dataclasses.replace(run.bench.further, of_sets={"fvd": {"name": "fvd"}})
    monkeypatch.setattr(clip_sets, "build_set_metric", lambda node, weights: CountingMetric())
    rows = gather(run.plan, run.bench.store, run.bench.records).results
    found, absent = clip_sets.compare_sets(run.plan, rows, further, run.bench.store)
    assert [f.value for f in found] == [606.0, 606.0] and not absent  # 3 photos with 2 seeds
    for clip in list((run.out / "rows" / "clips").iterdir()):
        clip.unlink()
    found, absent = clip_sets.compare_sets(run.plan, rows, further, run.bench.store)
    assert not found and "not on the disk" in absent[0].reason


class CountingMetric:
    """A figure of sets that counts: 100 for a reference clip, 1 for a judged one."""

    def __init__(self) -> None:
        self.total = 0

    def update(self, judged=(), reference=()) -> None:
        self.total += len(judged) + 100 * len(reference)

    def compute(self) -> float:
        return float(self.total)


def test_networks_are_built_for_each_generators_view(folders, monkeypatch) -> None:
    run = Run(folders, gauntlet=[{"name": "remover"}], seeds=[0])
    sizes = {"a": (24, 24), "b": (40, 32)}
    built = []
    build = Entry.build

    def made(entry, work_px):
        built.append(build(entry, work_px))
        return built[-1]

    def generator(node, device):
        monkeypatch.setattr(FadingGenerator, "view_size", sizes[node["label"]])
        return run.generator

    monkeypatch.setattr(Entry, "build", made)
    monkeypatch.setattr(workbench, "build_generator", generator)
    monkeypatch.setattr(
        run.generator, "_generate", lambda photos, *_: photos[:, None].repeat(1, 3, 1, 1, 1)
    )
    for label in sizes:
        run.bench.work("photo0.png", label)
    assert [network.config.work_px for network in built] == [24, 32]


def test_results_are_strict_json(folders, monkeypatch) -> None:
    run = whole(folders, monkeypatch, seeds=[0])
    for line in (run.out / "rows" / "results.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(word))
