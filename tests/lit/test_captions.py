"""Captions of shards as text conditions; the text encoder is loaded once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.cloaking.build import build_loop, build_surrogates, load_surrogate
from anti_i2v_lit.cloaking.member import Member
from anti_i2v_lit.cloaking.peers import Alone
from anti_i2v_lit.cloaking.stand_in import StandIn
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.lit import cloak_module
from anti_i2v_lit.lit.cloak_module import CloakModule, texts_beforehand
from anti_i2v_lit.lit.datamodule import PhotoDataModule
from anti_i2v_lit.lit.placement import Placement
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


class Shared(Alone):
    """One of two ranks that share photos, as far as the other is needed: what the leader said."""

    def __init__(self, leads: bool, said: list[Any]) -> None:
        self._leads, self._said = leads, said

    @property
    def leads(self) -> bool:
        return self._leads

    def from_leader(self, value: Any) -> Any:
        if self.leads:
            self._said.append(value)
        return self._said[-1]


class Devices:
    """The part of a strategy that is looked at; all ranks take turns in this process."""

    root_device = torch.device("cpu")

    def __init__(self) -> None:
        self.said: list[Any] = []

    def broadcast(self, work: Any) -> Any:
        self.said.append(work)
        return self.said[0]


class Enough(ValueError):
    """The surrogates were asked for; nothing more is wanted of the module."""


def test_all_ranks_that_share_photos_embed_their_captions_beforehand(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that reads no photo has a text encoder of its own to be loaded once."""
    settings = settings_of(tiny_checkpoint, "attack.prompt='{caption}'")
    shard = write(tmp_path / "photos-000.tar", samples(3))
    said: list[Any] = []
    asked: list[Sequence[str]] = []

    def stop(*_: Any, prompts: Sequence[str], **__: Any) -> None:
        asked.append(prompts)
        raise Enough

    devices = Devices()
    monkeypatch.setattr(cloak_module, "build_surrogates", stop)
    for rank in (0, 1):
        place = Placement(rank=rank, world=2, members=2)
        peers = Shared(place.leads, said)
        for name, found in (("placement_of", place), ("meet", (peers, Alone()))):
            answer: Callable[..., Any] = lambda *_, found=found: found  # noqa: E731
            monkeypatch.setattr(cloak_module, name, answer)
        monkeypatch.setattr("anti_i2v_lit.lit.datamodule.placement_of", lambda *_, p=place: p)
        data = PhotoDataModule(settings, photos=[str(shard)], out=tmp_path / "out")
        trainer: Any = SimpleNamespace(
            world_size=1, precision="32-true", datamodule=data, strategy=devices
        )
        data.trainer = trainer
        data.setup("fit")
        module = CloakModule(settings, out=tmp_path / "out")
        monkeypatch.setattr(CloakModule, "trainer", property(lambda self, t=trainer: t))
        with pytest.raises(Enough):
            module.configure_model()
    assert asked == [["caption 0", "caption 1", "caption 2"]] * 2


def test_a_rank_s_stand_in_needs_no_text_encoder(tiny_checkpoint: Path, loaded: list[str]) -> None:
    settings = settings_of(
        tiny_checkpoint, "attack.prompts=['a photo of {caption}', 'b']", "strategy=zero3"
    )
    texts = texts_beforehand(settings, ["a cat"])
    loop = build_loop(
        seed=settings.seed,
        attack=settings.attack,
        space=settings.space,
        surrogates=build_surrogates(settings.surrogates, "cpu", settings.objectives, prompts=texts),
        framing=Framing(settings.framing),
        device="cpu",
    )
    assert loaded == ["loaded"]
    for make in StandIn(loop).passes().values():
        made = make()
        made.backward(made.forward())
    assert loaded == ["loaded"]


def test_texts_without_a_caption_are_embedded_once(tiny_checkpoint: Path) -> None:
    settings = settings_of(tiny_checkpoint, "attack.prompts=[a, b]")
    assert texts_beforehand(settings, iter(["unread"])) == ["a", "b"]
    several = settings_of(tiny_checkpoint, "attack.prompts=['{caption}!', b]")
    assert texts_beforehand(several, ["x", "y"]) == ["x!", "b", "y!", "b"]
