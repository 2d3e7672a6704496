"""Every configuration file parses, resolves, and opens with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from anti_i2v_lit.settings import load_settings

FOLDER = Path(__file__).parents[2] / "configs" / "cloak"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_configs_were_found() -> None:
    assert len(FILES) >= 5


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_config_resolves_and_names_its_command(path: Path) -> None:
    settings = load_settings(path)
    assert settings.surrogates
    head = path.read_text(encoding="utf-8").splitlines()[:4]
    assert any(
        f"anti-i2v cloak PHOTOS --out DIR --config configs/cloak/{path.name}" in line
        for line in head
    )


def test_the_default_config_is_the_default() -> None:
    assert load_settings(FOLDER / "default.yaml").identity() == load_settings().identity()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("atack.steps=3", "Did you mean 'attack'"),
        ("attack.stpes=3", "Did you mean 'steps'"),
        ("space.name=duall", "Did you mean 'dual'"),
        ("attack.steps=0", "attack.steps must be at least 1"),
        ("attack.steps=many", "attack"),
        ("objectives.0.wieght=1", "Did you mean 'weight'"),
        ("nonsense", "section.field=value"),
        ("strategy=ddp", "photo_parallel"),
    ],
)
def test_wrong_values_are_refused_with_the_remedy(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_settings(overrides=[override])


def test_another_space_takes_none_of_the_former_ones_fields() -> None:
    by_word = load_settings(overrides=["space.name=rgb"])
    by_value = load_settings(values={"space": {"name": "rgb"}})
    assert by_word.space == by_value.space == {"name": "rgb"}
    kept = load_settings(overrides=["space.name=dual", "space.alternate_every=0"])
    assert kept.space["low_frequency"] == load_settings().space["low_frequency"]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem != "rgb_pgd"], ids=lambda p: p.stem
)
def test_another_model_is_attacked_with_the_terms_of_the_defaults(path: Path) -> None:
    """Presets list objectives to name their model's taps only: no term is lost on the way."""
    terms = [(o["name"], o.get("weight", 1.0)) for o in load_settings(path).objectives]
    assert terms == [(o["name"], o["weight"]) for o in load_settings().objectives]
