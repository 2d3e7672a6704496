import dataclasses
import json
import math
from pathlib import Path

import pytest

from anti_i2v_lit.evaluation.facts import (
    Counts,
    GeneratorFacts,
    PhotoFacts,
    ProtectedFile,
    Verdict,
)
from anti_i2v_lit.evaluation.outcome import Curve, HeatCell, Outcome
from anti_i2v_lit.evaluation.outcome_file import FILE, read_outcome, write_outcome
from anti_i2v_lit.evaluation.statistics import Estimate

SOME = Estimate(mean=0.1 + 0.2, low=-1e-17, high=math.inf, count=3)
NONE = Estimate(mean=math.nan, low=math.nan, high=math.nan, count=0)


def photo_facts() -> PhotoFacts:
    return PhotoFacts(
        key="ü/photo.jpg",
        path="/photos/ü/photo.jpg",
        sha256="00",
        size=(10, 20),
        has_face=False,
        files=(
            ProtectedFile(
                protection="ours",
                path="x",
                sha256="11",
                frame=(0.0, 0.125, 1.0, 0.875),
                pairing="same name",
                figures={"psnr": 31.5, "lpips": math.nan},
                residual_rms_8bit=7.25,
            ),
        ),
        verdicts=(
            Verdict(
                protection="ours",
                generator="unet",
                knowledge="held-out",
                verdict="weakened",
                reason="because",
                lost_after=("jpeg",),
            ),
        ),
    )


def outcome() -> Outcome:
    return Outcome(
        seconds=1.5,
        settings={"gauntlet": [{"name": "jpeg", "severity": 1.0}], "seeds": [0]},
        seeds=(0, 1),
        generators=(
            GeneratorFacts(
                label="unet",
                name="dynamicrafter",
                path="embedded",
                model_sha256="ab",
                view_size=(128, 96),
                num_frames=5,
                settings={"eta": 1.0},
            ),
        ),
        photos=(photo_facts(),),
        heat=(
            HeatCell(
                generator="unet",
                knowledge="held-out",
                protection="ours",
                purification="none",
                share_protected=SOME,
                share_changed=NONE,
                figure="dlib_mean_zero",
                value=SOME,
                clean=SOME,
                noise=NONE,
                counts=Counts(photos=3, prompts=1, seeds=2, clips=6),
            ),
        ),
        curves=(
            Curve(
                generator="unet",
                protection="clean",
                purification="none",
                figure="dlib",
                points=(SOME, NONE),
                chain_length=2,
            ),
        ),
    )


def test_an_outcome_comes_back_as_it_was(tmp_path: Path) -> None:
    before = outcome()
    path = write_outcome(before, tmp_path)
    assert path == tmp_path / FILE
    # NaN differs from itself, so the texts are compared as well as the types.
    after = read_outcome(tmp_path)
    assert repr(after) == repr(before)
    assert type(after.photos[0].files[0]) is ProtectedFile
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"not strict: {word}"))
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(format=99), "format 99"),
        (lambda plain: plain.update(colour=1), "unknown field 'colour'"),
        (lambda plain: plain["photos"][0].update(key=3), r"photos\[0\].key: expected str"),
        (lambda plain: plain["photos"][0].pop("size"), "size"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path: Path, change, message) -> None:
    path = write_outcome(outcome(), tmp_path)
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=message):
        read_outcome(tmp_path)


def test_a_folder_without_an_outcome_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="anti-i2v evaluate"):
        read_outcome(tmp_path)


def test_every_field_is_of_a_type_that_comes_back() -> None:
    plain = dataclasses.asdict(Outcome())
    assert set(plain) == {f.name for f in dataclasses.fields(Outcome)}
