"""Which models computed a cloak: the manifest, the user, or nobody says."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from anti_i2v_lit.checkpoints import LAYOUTS, model_digest, packaged_folder
from anti_i2v_lit.cli.evaluate_verb import stated_models
from anti_i2v_lit.evaluation.facts import HELD_OUT, UNKNOWN, WHITE_BOX, Verdict
from anti_i2v_lit.evaluation.knowledge import known_pairs, with_statements
from anti_i2v_lit.evaluation.matching import Matched
from anti_i2v_lit.evaluation.verdicts import overall

GENERATORS = {
    "mmdit": {"name": "cogvideox", "path": "embedded"},
    "unet": {"name": "dynamicrafter", "path": "embedded"},
    "mine": {"name": "svd", "path": "/nowhere/svd"},
}


def matched(name: str = "peer", **more: object) -> Matched:
    return Matched(name=name, folder=Path("x"), source="folder", **more)  # type: ignore[arg-type]


def states(*words: str) -> list[str]:
    """What is known of mmdit, unet and mine after a statement."""
    told = with_statements([matched()], {"peer": list(words)} if words else {}, GENERATORS)
    known = known_pairs(told, GENERATORS)
    return [known[label, "peer"] for label in GENERATORS]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [UNKNOWN, UNKNOWN, UNKNOWN]),
        (["mmdit"], [WHITE_BOX, HELD_OUT, HELD_OUT]),
        (["unet_128"], [HELD_OUT, WHITE_BOX, HELD_OUT]),
        (["mmdit", "unet_128"], [WHITE_BOX, WHITE_BOX, HELD_OUT]),
        (["other"], [HELD_OUT, HELD_OUT, HELD_OUT]),
        (["svd"], [HELD_OUT, HELD_OUT, WHITE_BOX]),  # some model of its class: in doubt this one
        (["wan_2_1"], [HELD_OUT, HELD_OUT, HELD_OUT]),
    ],
)
def test_what_is_known_after_a_statement(words: list[str], expected: list[str]) -> None:
    assert states(*words) == expected


def test_a_model_that_nobody_knows_is_a_slip_of_the_pen() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'cogvideox'.*'other' for a model"):
        states("cogvideo")
    with pytest.raises(ValueError, match="no such folder.*write svd alone"):
        states("svd:/elsewhere")
    with pytest.raises(ValueError, match="Did you mean 'peer'"):
        with_statements([matched()], {"pear": ["mmdit"]}, GENERATORS)


def test_the_user_adds_to_a_manifest_and_removes_nothing() -> None:
    ours = matched("ours", surrogates=("cogvideox:embedded",), told_by="manifest")
    (told,) = with_statements([ours], {"ours": ["unet"]}, GENERATORS)
    assert told.surrogates == ("cogvideox:embedded", "dynamicrafter:embedded")
    assert told.told_by == "manifest and the user"
    known = known_pairs([told], GENERATORS)
    assert [known[g, "ours"] for g in GENERATORS] == [WHITE_BOX, WHITE_BOX, HELD_OUT]
    assert with_statements([ours], {}, GENERATORS) == (ours,)
    assert with_statements([ours], {"ours": ["mmdit"]}, GENERATORS) == (ours,), "nothing new"


@pytest.mark.parametrize("files", [[], ["README.md"], ["config.json", "vae/config.json"]])
def test_a_folder_without_weights_cannot_be_compared(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert model_digest("svd", str(tmp_path)) == ""
    ours = matched("ours", surrogates=(f"cogvideox:{tmp_path}",), told_by="manifest")
    known = known_pairs([ours], GENERATORS)
    assert known["mmdit", "ours"] == WHITE_BOX, "nobody can say that it is another model"
    generators = {"lost": {"name": "cogvideox", "path": str(tmp_path)}}
    packaged = matched("ours", surrogates=("cogvideox:embedded",), told_by="manifest")
    assert known_pairs([packaged], generators)["lost", "ours"] == WHITE_BOX


def test_the_same_files_are_the_same_model_whatever_its_class_is_called(tmp_path: Path) -> None:
    copy = shutil.copytree(packaged_folder("cogvideox"), tmp_path / "copy")
    ours = matched("ours", surrogates=(f"wan_2_2:{copy}",), told_by="manifest")
    known = known_pairs([ours], GENERATORS)
    assert [known[g, "ours"] for g in GENERATORS] == [WHITE_BOX, HELD_OUT, HELD_OUT]


def test_one_weight_file_is_enough_whatever_the_other_files_say(tmp_path: Path) -> None:
    copy = shutil.copytree(packaged_folder("cogvideox"), tmp_path / "copy")
    for file in copy.rglob("*.json"):
        file.write_text(file.read_text() + "\n")
    ours = matched("ours", surrogates=(f"cogvideox:{copy}",), told_by="manifest")
    assert known_pairs([ours], GENERATORS)["mmdit", "ours"] == WHITE_BOX
    weights = sorted(copy.rglob("*.safetensors"))
    assert len(weights) > 1
    for changed in weights[:-1]:
        changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    assert known_pairs([ours], GENERATORS)["mmdit", "ours"] == WHITE_BOX
    weights[-1].write_bytes(b"x")
    assert known_pairs([ours], GENERATORS)["mmdit", "ours"] == HELD_OUT
    assert known_pairs([ours], GENERATORS)["unet", "ours"] == HELD_OUT


def test_files_of_another_format_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"x")
    ours = matched("ours", surrogates=(f"cogvideox:{tmp_path}",), told_by="manifest")
    known = known_pairs([ours], GENERATORS)
    assert [known[g, "ours"] for g in ("mmdit", "unet")] == [WHITE_BOX, HELD_OUT]


def test_an_autoencoder_that_the_loop_ran_is_compared_by_its_weight_files(tmp_path: Path) -> None:
    part = shutil.copytree(packaged_folder("cogvideox") / "vae", tmp_path / "vae")
    other = tmp_path / "other"
    other.mkdir()
    (other / "taesd_encoder.pth").write_bytes(b"x")
    generators = {label: GENERATORS[label] for label in ("mmdit", "unet")}
    for folder, expected in (
        (part, [WHITE_BOX, HELD_OUT]),
        (other, [HELD_OUT, HELD_OUT]),
        (tmp_path / "gone", [WHITE_BOX, WHITE_BOX]),
    ):
        ours = matched("ours", surrogates=(f"vae:{folder}",), told_by="manifest")
        known = known_pairs([ours], generators)
        assert [known[g, "ours"] for g in generators] == expected


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_folder_of_another_class_is_refused(name: str, tmp_path: Path) -> None:
    folder = packaged_folder("cogvideox")
    if name == "cogvideox":
        assert states(f"{name}:{folder}") == [WHITE_BOX, HELD_OUT, HELD_OUT]
    else:
        with pytest.raises(ValueError, match=f"is no checkpoint of {name}: .*write {name} alone"):
            states(f"{name}:{folder}")
    with pytest.raises(ValueError, match="it lacks "):
        states(f"{name}:{tmp_path}")


def test_classes_are_called_as_diffusers_calls_them() -> None:
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "models"
    files = [*source.glob("transformers/*.py"), *source.glob("unets/*.py")]
    known = {c for f in files for c in re.findall(r"^class (\w+)\(", f.read_text(), re.M)}
    named = {v for x in LAYOUTS.values() for _, key, v in x.says if key == "_class_name"}
    assert len(named) == 4 and named <= known


def test_a_manifest_that_leaves_models_out_tells_of_those_that_it_names() -> None:
    ours = matched("ours", surrogates=("cogvideox:embedded",))
    known = known_pairs([ours], GENERATORS)
    assert [known[g, "ours"] for g in GENERATORS] == [WHITE_BOX, UNKNOWN, UNKNOWN]


def test_verdicts_are_those_of_held_out_models_then_unknown_ones() -> None:
    def verdict(generator: str, knowledge: str, word: str) -> Verdict:
        return Verdict(
            protection="p", generator=generator, knowledge=knowledge, verdict=word, reason="r"
        )

    white = verdict("w", WHITE_BOX, "not protected")
    unknown = verdict("u", UNKNOWN, "weakened")
    held_out = verdict("h", HELD_OUT, "protected")
    assert overall([white, unknown, held_out]).verdict == "protected"
    both = overall([white, unknown])
    assert both.verdict == "weakened" and both.knowledge == UNKNOWN
    assert both.reason.endswith("so a white-box result cannot be excluded")
    assert "nothing is known of others" in overall([white]).reason


def test_words_of_the_command_line() -> None:
    assert stated_models(["a=mmdit, unet", "b=other"], ["a", "b"]) == {
        "a": ["mmdit", "unet"],
        "b": ["other"],
    }
    assert stated_models(["svd:/m"], ["a"]) == {"a": ["svd:/m"]}
    with pytest.raises(ValueError, match="a or b.*NAME=mmdit"):
        stated_models(["mmdit"], ["a", "b"])
    with pytest.raises(ValueError, match="one list of models per protection"):
        stated_models(["a=mmdit", "a=unet"], ["a"])
