"""Captions of shards as text conditions; the text encoder is loaded once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.cloaking.build import load_surrogate
from anti_i2v_lit.cloaking.member import Member
from anti_i2v_lit.lit.datamodule import PhotoDataModule
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings, load_settings
from anti_i2v_lit.surrogates import cogvideox_loading
from tests.conftest import fast_values
from tests.data.shards.making import samples, write


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for every time that a text encoder is loaded."""
    original, seen = cogvideox_loading._load_text_model, []

    def load(*arguments: Any) -> Any:
        seen.append("loaded")
        return original(*arguments)

    monkeypatch.setattr(cogvideox_loading, "_load_text_model", load)
    return seen


def settings_of(tiny_checkpoint: Path, *overrides: str) -> Settings:
    values = fast_values(tiny_checkpoint)
    values["attack"] = {"steps": 2, "num_draws": 2, "num_verification_draws": 1}
    return load_settings(values=values, overrides=overrides)


def test_a_text_encoder_is_loaded_once_for_all_captions(
    tmp_path: Path, tiny_checkpoint: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    draw = Member._prompt

    def spy(self: Member, job: Any, number: int) -> str:
        asked.add(draw(self, job, number))
        return draw(self, job, number)

    monkeypatch.setattr(Member, "_prompt", spy)
    settings = settings_of(tiny_checkpoint, "attack.prompt='{caption}'")
    shard = write(tmp_path / "photos-000.tar", samples(3))
    out = tmp_path / "out"
    assert cloak(settings, photos=[str(shard)], out=out) == 0
    assert len(Ledger(out).rows()) == 3
    assert asked == {"caption 0", "caption 1", "caption 2"}
    assert loaded == ["loaded"]


def test_captions_are_known_before_photos_are_read(tmp_path: Path, tiny_checkpoint: Path) -> None:
    shard = write(tmp_path / "photos-000.tar", [*samples(2), *samples(1, start=2)[:1]])
    data = PhotoDataModule(settings_of(tiny_checkpoint), photos=[str(shard)], out=tmp_path / "out")
    data.setup("fit")
    assert data.stream is not None
    assert list(data.stream.captions()) == ["caption 0", "caption 1", ""]
    data.stream.finished.add("photos-000/000000.png")
    assert list(data.stream.captions()) == ["caption 1", ""]


def test_a_caption_is_no_setting(tiny_checkpoint: Path) -> None:
    node = fast_values(tiny_checkpoint)["surrogates"][0]
    for caption in ("price ${x}", "${oc.env:HOME}", "???"):
        load_surrogate(node, "cpu", prompts=[caption, "a person"])
