"""Which models computed a cloak: the manifest, the user, or nobody says."""

import warnings
from pathlib import Path

import pytest

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
        (["svd:/elsewhere"], [HELD_OUT, HELD_OUT, WHITE_BOX]),  # cannot be compared
        (["wan_2_1"], [HELD_OUT, HELD_OUT, HELD_OUT]),
    ],
)
def test_what_is_known_after_a_statement(words: list[str], expected: list[str]) -> None:
    assert states(*words) == expected


def test_a_model_that_nobody_knows_is_a_slip_of_the_pen() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'cogvideox'.*'other' for a model"):
        states("cogvideo")
    with pytest.raises(ValueError, match="Did you mean 'peer'"):
        with_statements([matched()], {"pear": ["mmdit"]}, GENERATORS)


def test_a_manifest_is_believed_before_the_user() -> None:
    ours = matched("ours", surrogates=("cogvideox:embedded",), told_by="manifest")
    with pytest.warns(UserWarning, match="surrogates.ours is ignored: its manifest says cogv"):
        told = with_statements([ours], {"ours": ["unet"]}, GENERATORS)
    assert told == (ours,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_statements([ours], {}, GENERATORS) == (ours,)


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
