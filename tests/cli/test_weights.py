"""`--weights` reaches the CLIP term, or says why not."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from anti_i2v_lit.cli.cloak_verb import add_arguments, settings_of
from anti_i2v_lit.settings import load_settings


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["photos", "--out", "out", *words])


def test_weights_reach_every_clip_term(tmp_path: Path) -> None:
    file = tmp_path / "clip.pt"
    file.write_bytes(b"x")
    terms = ["objectives=[{name: irc}, {name: clip_distance}]"]
    settings = settings_of(parsed("--weights", str(file)), terms)
    assert settings.objectives[1]["weights"] == str(file)


def test_weights_that_nothing_uses_or_that_are_missing_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "clip.pt"
    with pytest.raises(ValueError, match="is not a file"):
        settings_of(parsed("--weights", str(file)), [])
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="nothing would use it"):
        settings_of(parsed("--weights", str(file)), [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attack=5", "attack: expected fields"),
        ("surrogates=cogvideox", "surrogates: expected a list"),
        ("objectives=[]", "objectives: expected a list"),
        ("trainer=fast", "trainer: expected fields"),
        ("seed=true", "seed must be a whole number"),
        ("surrogates.0.weight=much", "surrogates.weight must be a number"),
        ("gate.min_ssim=60", "gate.min_ssim must be between"),
    ],
)
def test_sections_of_the_wrong_kind_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_settings(overrides=[override])
