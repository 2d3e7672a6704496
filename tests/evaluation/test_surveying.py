"""What is looked at once, again, or never; and who counts as another person."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.faces import FaceConfig
from anti_i2v_lit.evaluation.facts import UNREADABLE
from anti_i2v_lit.evaluation.further import build_further
from anti_i2v_lit.evaluation.plan import Plan, make_plan
from anti_i2v_lit.evaluation.records import PhotoRecord, RecordStore
from anti_i2v_lit.evaluation.settings import IdentitySettings, load_evaluation_settings
from anti_i2v_lit.evaluation.strangers import NO_FACE_IN_PHOTO, Strangers, packed, unpacked
from anti_i2v_lit.evaluation.surveying import Surveyor
from tests.evaluation.fakes import (
    BrightDetector,
    MeanEmbedder,
    fake_judge,
    write_noisy,
    write_photos,
)

COLOURS = {
    "green": (10, 200, 10),
    "red1": (200, 10, 10),
    "red2": (220, 30, 10),
    "zblue": (10, 10, 200),
}


def surveyor_of(folder: Path, **values: object) -> Surveyor:
    """One run's surveyor of `photos` and `ours`."""
    settings = load_evaluation_settings(values={"metrics": ["motion"], **values})
    plan = make_plan(
        settings, clean=folder / "photos", cloaked={"ours": folder / "ours"}, out=folder / "out"
    )
    further = build_further(settings.metric_nodes(), None)
    return Surveyor(plan, RecordStore(folder / "out"), fake_judge(), further)


def people_of(surveyor: Surveyor) -> dict[str, dict[str, str]]:
    return {key: surveyor.record(key).person for key in surveyor._plan.photos}


def test_photos_that_may_show_the_same_person_are_no_strangers(tmp_path: Path) -> None:
    folder, paths = tmp_path / "photos", []
    folder.mkdir()
    for name, colour in COLOURS.items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(paths[-1])
    write_noisy(paths, tmp_path / "ours", 4)
    people = people_of(surveyor_of(tmp_path))
    strangers = Strangers(people, IdentitySettings())
    # The fake network's vector is the mean colour, so red and green are strangers.
    clip = {"dlib@0": packed(torch.tensor([0.5, 0.25, 0.0]))}
    found = strangers.similarities("red1.png", clip)["dlib"]
    assert [math.isnan(value) for value in found] == [False, True, False]
    for colour, value in ((COLOURS["green"], found[0]), (COLOURS["zblue"], found[2])):
        unit = np.array(colour) / np.linalg.norm(colour)
        assert value == pytest.approx(unit @ [0.5, 0.25, 0.0], abs=1e-3)
    assert not any(math.isnan(v) for v in strangers.similarities("green.png", clip)["dlib"])
    # A clip without any face is nobody; without a face in the photo nobody looked at the clip.
    assert strangers.similarities("green.png", {"dlib@0": ""})["dlib"] == (0.0, 0.0, 0.0)
    assert strangers.similarities("green.png", {"dlib@0": NO_FACE_IN_PHOTO}) == {}
    lonely = Strangers({**people, "red1.png": {}}, IdentitySettings())
    assert all(math.isnan(v) for v in lonely.similarities("red1.png", clip)["dlib"])


def test_a_vector_comes_back_as_it_was() -> None:
    vector = torch.randn(1024)
    assert np.array_equal(unpacked(packed(vector)), vector.numpy())
    assert len(unpacked("")) == 0


def test_a_clip_is_compared_with_evenly_spaced_others() -> None:
    people = {f"p{i}": {"dlib": packed(torch.tensor([float(i)]))} for i in range(9)}
    # A cosine of one-dimensional vectors is their product here: p3 is nobody else.
    people["p3"] = {"dlib": packed(torch.tensor([-1.0]))}
    settings = IdentitySettings(others=4)
    found = Strangers(people, settings).similarities("p3", {"dlib": packed(torch.ones(1))})
    assert found["dlib"] == (0.0, 2.0, 5.0, 7.0)


def test_people_are_compared_by_networks_that_saw_both() -> None:
    east, north = packed(torch.tensor([1.0, 0.0])), packed(torch.tensor([0.0, 1.0]))
    people = {
        "a": {"dlib@1": east, "hse@1": east},
        "b": {"dlib@1": north},  # hse came later and the run was interrupted
        "c": {"hse@1": north, "dlib@0": north},  # of other weights
        "d": {"dlib@0": north},
        "e": {"dlib@1": north, "hse@1": ""},  # it looked and found no face
    }
    clip = {"dlib@1": north, "hse@1": north}
    found = Strangers(people, IdentitySettings()).similarities("a", clip)
    nan = pytest.approx(math.nan, nan_ok=True)
    assert found == {"dlib": (1.0, nan, nan, 1.0), "hse": (nan, 1.0, nan, nan)}
    assert found["hse"][0] != 1.0
    # Nobody is told from anybody by a network without a fixed threshold.
    unsure = Strangers(people, IdentitySettings(fallback={"hse": 0.25}))
    assert unsure.similarities("a", clip)["dlib"] == (nan, nan, nan, nan)


def counted(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> list[str]:
    """The keys of the files that a plan reads from now on."""
    read, seen = Plan.read, []

    def reading(self: Plan, source: object) -> torch.Tensor:
        seen.append(Path(source.path).parent.name)  # type: ignore[attr-defined]
        return read(self, source)  # type: ignore[arg-type]

    monkeypatch.setattr(Plan, "read", reading)
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_noisy(write_photos(tmp_path / "photos", 2), tmp_path / "ours", 9)
    return tmp_path


def figures(surveyor: Surveyor, record: PhotoRecord) -> dict[str, float]:
    (file,) = record.files_with(surveyor._further.file_settings)
    return file.figures


def test_another_metric_of_files_is_taken_for_photos_that_are_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = surveyor_of(folder)
    before = first.record("photo0.png")
    assert "lightness" not in figures(first, before)
    second = surveyor_of(folder, metrics=["motion", "lightness"])
    assert second.known("photo0.png") is None, "something is left to be looked at"
    inspected = []
    monkeypatch.setattr(
        "anti_i2v_lit.evaluation.surveying.inspect", lambda *given: inspected.append(given)
    )
    after = second.record("photo0.png")
    assert after.identity == before.identity and not inspected, "only the new figure is taken"
    from skimage.color import rgb2lab

    pixels = [np.asarray(Image.open(folder / f / "photo0.png")) for f in ("photos", "ours")]
    expected = np.abs(np.subtract(*[rgb2lab(p)[..., 0] for p in pixels])).mean()
    assert figures(second, after)["lightness"] == pytest.approx(expected, rel=1e-3)
    assert {n: v for n, v in figures(second, after).items() if n != "lightness"} == figures(
        first, before
    )
    seen = counted(monkeypatch, second._plan)
    third = surveyor_of(folder, metrics=["lightness"])
    assert third.known("photo0.png") is not None and third.record("photo0.png") and not seen
    assert "lightness" not in figures(surveyor_of(folder), after), "nobody asked for it"


def test_a_face_network_that_comes_later_sees_photos_that_are_known(folder: Path) -> None:
    first = surveyor_of(folder)
    first.record("photo0.png")
    second = surveyor_of(folder)
    second._judge.embedders["hse"] = MeanEmbedder()  # type: ignore[assignment]
    assert second.known("photo0.png") is None
    assert set(second.record("photo0.png").person) == {"dlib@0", "hse@0"}
    assert second.known("photo0.png") is not None


def test_vectors_of_other_weights_are_made_again(folder: Path) -> None:
    surveyor_of(folder).record("photo0.png")
    second = surveyor_of(folder)
    parts = second._judge.parts
    second._judge.embedders["dlib"] = MeanEmbedder("1")  # type: ignore[assignment]
    assert second._judge.parts != parts
    assert second.known("photo0.png") is None
    assert second.record("photo0.png").person["dlib@1"]
    assert surveyor_of(folder).known("photo0.png") is not None, "the former ones are still there"


def test_a_photo_is_looked_at_once_if_its_face_is_not_found_again(folder: Path) -> None:
    first = surveyor_of(folder).record("photo0.png")
    for _ in range(2):
        later = surveyor_of(folder)
        later._judge.embedders["hse"] = MeanEmbedder()  # type: ignore[assignment]
        later._judge.detector = BrightDetector(limit=2.0)
        record = later.record("photo0.png")
        assert record.person == {**first.person, "hse@0": ""} and later.known("photo0.png")
    found = dataclasses.replace(record, person={"hse@0": "a vector", "dlib@0": ""})
    for both in (record.joined(found), found.joined(record)):
        assert both.person == {**first.person, "hse@0": "a vector"}


def test_a_file_that_could_not_be_read_is_read_again_by_the_next_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes: a disk, a permission or a decoder was in the way."""
    read = Plan.read

    def failing(self: Plan, source: object) -> torch.Tensor:
        if Path(source.path).parent.name == "ours":  # type: ignore[attr-defined]
            raise PhotoFailure("Input/output error")
        return read(self, source)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Plan, "read", failing)
        first = surveyor_of(folder)
        broken = first.record("photo0.png")
        assert [p.kind for p in broken.problems] == [UNREADABLE] and not broken.cloaks
        assert first.known("photo0.png") == broken, "one run tries once"
    again = surveyor_of(folder)
    assert again.known("photo0.png") is None
    mended = again.record("photo0.png")
    assert mended.identity == broken.identity and mended.cloaks == ("ours",)
    assert surveyor_of(folder).known("photo0.png") == mended


def test_records_of_other_versions_are_made_again(folder: Path) -> None:
    surveyor = surveyor_of(folder)
    record = surveyor.record("photo0.png")
    path = folder / "out" / "photos.jsonl"
    old = json.loads(path.read_text())
    for name in ("person", "figures"):
        del old[name]
    path.write_text(json.dumps({**old, "identity": "of before"}) + "\n")
    surveyor._records._journal.close()
    assert surveyor_of(folder).record("photo0.png") == record


def test_the_detector_is_part_of_a_records_identity(folder: Path) -> None:
    plan = surveyor_of(folder)._plan
    other = dataclasses.replace(plan.settings, faces=FaceConfig(min_score=0.99))
    changed = dataclasses.replace(plan, settings=other)
    assert changed.record_identity("photo0.png") != plan.record_identity("photo0.png")
