"""Who counts as another person."""

from pathlib import Path

import numpy as np
from PIL import Image

from anti_i2v_lit.evaluation.further import build_further
from anti_i2v_lit.evaluation.plan import make_plan
from anti_i2v_lit.evaluation.records import RecordStore
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.evaluation.surveying import Surveyor
from tests.evaluation.fakes import fake_judge, write_noisy

COLOURS = {
    "green": (10, 200, 10),
    "red1": (200, 10, 10),
    "red2": (220, 30, 10),
    "zblue": (10, 10, 200),
}


def test_photos_that_may_show_the_same_person_are_no_strangers(tmp_path: Path) -> None:
    folder, paths = tmp_path / "photos", []
    folder.mkdir()
    for name, colour in COLOURS.items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(paths[-1])
    write_noisy(paths, tmp_path / "ours", 4)
    settings = load_evaluation_settings(values={"metrics": ["motion"]})
    plan = make_plan(
        settings, clean=folder, cloaked={"ours": tmp_path / "ours"}, out=tmp_path / "out"
    )
    further = build_further(settings.metric_nodes(), None)
    surveyor = Surveyor(plan, RecordStore(tmp_path / "out"), fake_judge(), further)
    # The fake network's vector is the mean colour, so red and green are strangers.
    others = [person["dlib"] for person in surveyor.other_people("red1.png")]
    assert [bool(vector.isnan().all()) for vector in others] == [False, True, False]
    assert [bool(vector.isfinite().all()) for vector in others] == [True, False, True]
    green = [person["dlib"] for person in surveyor.other_people("green.png")]
    assert all(bool(vector.isfinite().all()) for vector in green)
