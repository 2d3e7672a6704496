"""What a surrogate is shown of a photo, of the clean photo and of the anchor at one draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from anti_i2v_lit.cloaking.anchor import anchor_image
from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.draws import DrawPool
from anti_i2v_lit.cloaking.ensemble import WeightedSurrogate
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.member import VERIFICATION, Member
from anti_i2v_lit.data.framing import Framing, FramingConfig
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.dynamicrafter import DynamiCrafterSurrogate
from anti_i2v_lit.surrogates.svd import SVDSurrogate
from tests.cloaking.linear import SIDE, LinearSurrogate

Terms = Mapping[str, Mapping[str, Any]]


def member_of(surrogate: Surrogate, nodes: Terms, **attack: Any) -> Member:
    terms = {name: OBJECTIVES.build({"name": name, **fields}) for name, fields in nodes.items()}
    model = WeightedSurrogate(name="model", surrogate=surrogate, weight=1.0, objectives=terms)
    return Member(
        model,
        purpose="",
        seed=3,
        config=AttackConfig(**attack),
        framing=Framing(FramingConfig()),
    )


def job_of(size: tuple[int, int], key: str = "photo", caption: str = "") -> PhotoJob:
    canvas = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(5))
    job = PhotoJob(
        key=key, photo_size=size, canvas=canvas, faces=(), budget_8bit=16, caption=caption
    )
    job.pools = {"model": DrawPool()}
    return job


@pytest.mark.parametrize("terms", [{"ira_encoder": {}}, {"ira_encoder": {}, "denoising": {}}])
def test_the_anchor_is_noised_as_the_photo_is(terms: Terms) -> None:
    surrogate = SVDSurrogate.tiny()
    member, job = member_of(surrogate, terms), job_of(surrogate.view_size)
    image = anchor_image("texture", *surrogate.view_size)
    taps = frozenset(surrogate.encoder_taps)
    plain = surrogate.condition(image, taps)
    for number in (0, 1):
        entry = member.entry(job, number)
        expected = surrogate.condition(image, taps, entry.draw)
        found = entry.references["anchor"].condition
        assert found is not None
        for name in taps:
            torch.testing.assert_close(found.features[name], expected.features[name])
            assert not torch.equal(found.features[name], plain.features[name])


def test_the_photo_itself_is_at_no_distance_under_noise() -> None:
    """The cloak is noised like its references also where no term needs the denoiser."""
    surrogate = SVDSurrogate.tiny()
    member = member_of(surrogate, {"ira_latent": {"direction": "away"}})
    job = job_of(surrogate.view_size)
    losses = member.losses([job], [job.canvas], [member.entry(job, VERIFICATION)])
    assert losses["total"].abs().item() < 1e-9


def test_image_tokens_are_made_only_where_a_term_needs_them() -> None:
    surrogate = DynamiCrafterSurrogate.tiny()
    seen: list[str] = []
    surrogate.modules[2].register_forward_pre_hook(lambda *_: seen.append("looked"))
    job = job_of(surrogate.view_size)
    without = member_of(surrogate, {"ira_encoder": {}})
    without.losses([job], [job.canvas], [without.entry(job, 0)])
    assert seen == []
    job.pools = {"model": DrawPool()}
    using = member_of(surrogate, {"denoising": {}})
    using.losses([job], [job.canvas], [using.entry(job, 0)])
    assert seen == ["looked"]


def test_a_prompt_is_drawn_per_draw_and_photo() -> None:
    member = member_of(LinearSurrogate(), {"denoising": {}}, prompts=["{caption}", "b", "c"])
    job, other = (job_of((SIDE, SIDE), key=key, caption="a cat") for key in ("one", "two"))
    texts = [member.entry(job, n).draw.prompts[0] for n in range(40)]
    assert set(texts) == {"a cat", "b", "c"}
    job.pools = {"model": DrawPool()}
    # In another order, as after an interruption: the same.
    assert [member.entry(job, n).draw.prompts[0] for n in reversed(range(40))] == texts[::-1]
    assert [member.entry(other, n).draw.prompts[0] for n in range(40)] != texts
    judged = [member.entry(job, VERIFICATION + n).draw.prompts[0] for n in range(4)]
    assert judged == ["a cat", "b", "c", "a cat"]


def test_prompts_leave_views_noise_and_timesteps_alone() -> None:
    one, several = (
        member_of(LinearSurrogate(), {"denoising": {}}, prompts=prompts)
        for prompts in ([], ["a", "b"])
    )
    job = job_of((SIDE, SIDE))
    for number in (0, 1, VERIFICATION):
        plain, drawn = one.made(job, number), several.made(job, number)
        assert plain.view == drawn.view
        assert torch.equal(plain.draw.noise, drawn.draw.noise)
        assert torch.equal(plain.draw.timesteps, drawn.draw.timesteps)
        assert plain.draw.prompts == ("a person is talking",)


def test_all_texts_of_photos_are_prepared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate, seen = LinearSurrogate(), []
    monkeypatch.setattr(surrogate, "_prepare_prompts", seen.append)
    member = member_of(surrogate, {"denoising": {}}, prompts=["{caption}, smiling", "b"])
    member.prepare_prompts([job_of((SIDE, SIDE), caption=c) for c in ("a cat", "")])
    assert seen == [["a cat, smiling", "b", ", smiling", "b"]]
