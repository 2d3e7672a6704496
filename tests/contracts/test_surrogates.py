"""Every registered surrogate keeps the promises of the seam, on its miniature."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Draw

PROMPTS = ("a person is talking", "smile")


@pytest.fixture(scope="module", params=SURROGATES.names())
def surrogate(request: pytest.FixtureRequest) -> Surrogate:
    return SURROGATES.load(request.param).tiny()


def views_of(surrogate: Surrogate, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(count, 3, *surrogate.view_size, generator=generator)


def draw_for(surrogate: Surrogate, views: torch.Tensor, seeds: tuple[int, ...] = (1, 2)) -> Draw:
    clips = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    prompts = PROMPTS[: len(views)]
    return surrogate.draw(surrogate.encode_clip(clips), generators, prompts, (0.2, 0.8))


def part(draw: Draw, index: int) -> Draw:
    one = slice(index, index + 1)
    return Draw(
        clip_latents=draw.clip_latents[one],
        noise=draw.noise[one],
        timesteps=draw.timesteps[one],
        prompts=draw.prompts[one],
    )


def all_taps(surrogate: Surrogate) -> frozenset[str]:
    return frozenset(surrogate.denoiser_taps)


def test_tiny_is_tiny(surrogate: Surrogate) -> None:
    """Built in well under a second, whatever the machine: what costs time is drawing weights."""
    weights = sum(p.numel() for network in surrogate.modules for p in network.parameters())
    assert weights < 3_000_000, weights


def test_weights_are_frozen_and_in_eval_mode(surrogate: Surrogate) -> None:
    for network in surrogate.modules:
        assert all(not p.requires_grad for p in network.parameters())
        assert all(not m.training for m in network.modules())
    assert sum(p.numel() for m in surrogate.modules for p in m.parameters()) > 0


def test_all_taps_fire_with_a_batch_of_features(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    condition = surrogate.condition(views, frozenset(surrogate.encoder_taps))
    assert tuple(condition.features) == surrogate.encoder_taps
    for name, value in condition.features.items():
        assert value.ndim == 4 and len(value) == 2, name
        assert value.dtype == torch.float32 and value.isfinite().all(), name
        assert value.std() > 0, name
    draw = draw_for(surrogate, views)
    denoised = surrogate.denoise(condition, draw, all_taps(surrogate), prediction=True)
    assert tuple(denoised.features) == surrogate.denoiser_taps
    for name, value in denoised.features.items():
        assert value.ndim == 3 and len(value) == 2, name
        assert value.dtype == torch.float32 and value.isfinite().all(), name
        assert value.std() > 0, name
    assert denoised.prediction is not None
    assert denoised.prediction.shape == denoised.target.shape == draw.clip_latents.shape


def test_gradients_reach_the_photo(surrogate: Surrogate) -> None:
    views = views_of(surrogate).requires_grad_()
    condition = surrogate.condition(views, frozenset(surrogate.encoder_taps))
    denoised = surrogate.denoise(condition, draw_for(surrogate, views), all_taps(surrogate), True)
    assert denoised.prediction is not None
    values = {"latents": condition.latents, "prediction": denoised.prediction}
    for name, value in {**values, **condition.features, **denoised.features}.items():
        (gradient,) = torch.autograd.grad(value.square().sum(), views, retain_graph=True)
        assert gradient.isfinite().all(), name
        assert (gradient.flatten(1).abs().amax(1) > 0).all(), name
    assert all(p.grad is None for m in surrogate.modules for p in m.parameters())


def test_gradient_agrees_with_a_finite_difference(surrogate: Surrogate) -> None:
    views = views_of(surrogate, 1).mul(0.8).add(0.1).requires_grad_()
    draw = draw_for(surrogate, views, (1,))

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        denoised = surrogate.denoise(surrogate.condition(pixels), draw, frozenset(), True)
        assert denoised.prediction is not None
        return (denoised.prediction - denoised.target).double().square().mean()

    (gradient,) = torch.autograd.grad(loss(views), views)
    direction = gradient / gradient.norm()
    step = 0.05
    with torch.no_grad():
        rise = (loss(views + step * direction) - loss(views - step * direction)) / (2 * step)
    assert rise.item() == pytest.approx(gradient.norm().item(), rel=0.05)


def test_no_hooks_stay_behind(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    condition = surrogate.condition(views, frozenset(surrogate.encoder_taps))
    surrogate.denoise(condition, draw_for(surrogate, views), all_taps(surrogate), True)
    for network in surrogate.modules:
        for module in network.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks


def test_same_draw_same_result(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    outcomes = []
    for _ in range(2):
        draw = draw_for(surrogate, views)
        denoised = surrogate.denoise(surrogate.condition(views), draw, frozenset(), True)
        assert denoised.prediction is not None
        outcomes.append((draw.clip_latents, draw.timesteps, denoised.target, denoised.prediction))
        torch.rand(3)  # the global random state must not matter
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_timesteps_fill_their_range_and_never_leave_the_schedule(surrogate: Surrogate) -> None:
    views = views_of(surrogate, 1)
    latents = surrogate.encode_clip(views[:, None].expand(-1, surrogate.num_frames, -1, -1, -1))
    length = surrogate.num_timesteps
    for low, high in ((0.0, 1.0), (0.25, 0.75), (0.0, 0.0), (1.0, 1.0)):
        found = [
            surrogate.draw(latents, [torch.Generator().manual_seed(i)], [""], (low, high)).timesteps
            for i in range(60)
        ]
        steps = [int(t) for t in found]
        assert low * length - 1 <= min(steps) and max(steps) < max(high * length, 1)
        assert max(steps) - min(steps) >= 0.8 * (high - low) * length - 1


def test_other_draws_photos_and_prompts_change_the_result(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    condition, draw = surrogate.condition(views), draw_for(surrogate, views)
    base = surrogate.denoise(condition, draw, frozenset(), True).prediction
    other = surrogate.denoise(
        condition, draw_for(surrogate, views, (8, 9)), frozenset(), True
    ).prediction
    flipped = surrogate.denoise(
        surrogate.condition(views.flip(-1)), draw, frozenset(), True
    ).prediction
    said = dataclasses.replace(draw, prompts=draw.prompts[::-1])
    reworded = surrogate.denoise(condition, said, frozenset(), True).prediction
    assert base is not None and other is not None
    assert flipped is not None and reworded is not None
    assert not torch.allclose(base, other, atol=1e-4)
    assert torch.allclose(base, reworded, atol=1e-6) is not surrogate.takes_prompts
    assert not torch.allclose(base, flipped, atol=1e-6)


def test_batch_of_two_equals_two_singles(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    draw = draw_for(surrogate, views)
    taps = all_taps(surrogate)
    both = surrogate.condition(views, frozenset(surrogate.encoder_taps))
    together = surrogate.denoise(both, draw, taps, True)
    assert together.prediction is not None
    for i in range(2):
        condition = surrogate.condition(views[i : i + 1], frozenset(surrogate.encoder_taps))
        alone = surrogate.denoise(condition, part(draw, i), taps, True)
        assert alone.prediction is not None
        pairs = [(together.prediction[i], alone.prediction[0])]
        pairs += [(both.features[n][i], condition.features[n][0]) for n in both.features]
        pairs += [(together.features[n][i], alone.features[n][0]) for n in taps]
        for batched, single in pairs:
            torch.testing.assert_close(batched, single, atol=1e-5, rtol=1e-4)


def test_condition_at_a_draw_follows_the_draw_and_the_photo_only(surrogate: Surrogate) -> None:
    views = views_of(surrogate).requires_grad_()
    draw = draw_for(surrogate, views)
    together = surrogate.condition(views, draw=draw)
    torch.rand(3)  # the global random state must not matter
    assert torch.equal(together.latents, surrogate.condition(views, draw=draw).latents)
    for i in range(2):
        alone = surrogate.condition(views[i : i + 1], draw=part(draw, i))
        torch.testing.assert_close(together.latents[i], alone.latents[0], atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(together.latents.square().sum(), views)
    assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_image_embedding_is_made_for_the_denoiser_only(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    draw, taps = draw_for(surrogate, views), frozenset(surrogate.encoder_taps)
    whole = surrogate.condition(views, taps, draw)
    without = surrogate.condition(views, taps, draw, embedding=False)
    assert without.image_embedding is None
    assert torch.equal(without.latents, whole.latents)
    assert all(torch.equal(without.features[name], whole.features[name]) for name in taps)


def test_noised_photos_are_announced(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    draw = draw_for(surrogate, views)
    same = torch.equal(
        surrogate.condition(views, draw=draw).latents, surrogate.condition(views).latents
    )
    assert same is not surrogate.noises_photos


def test_truncated_run_gives_the_taps_of_the_full_run(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    condition, draw = surrogate.condition(views), draw_for(surrogate, views)
    full = surrogate.denoise(condition, draw, all_taps(surrogate), True)
    for name in surrogate.denoiser_taps:
        short = surrogate.denoise(condition, draw, frozenset({name}), False)
        assert short.prediction is None
        assert list(short.features) == [name]
        torch.testing.assert_close(short.features[name], full.features[name], atol=0, rtol=0)
        torch.testing.assert_close(short.target, full.target, atol=0, rtol=0)


def test_unknown_taps_are_refused_with_a_suggestion(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    wrong = surrogate.encoder_taps[0] + "x"
    with pytest.raises(ValueError, match=f"Did you mean '{surrogate.encoder_taps[0]}'"):
        surrogate.condition(views, frozenset({wrong}))
    condition, draw = surrogate.condition(views), draw_for(surrogate, views)
    wrong = surrogate.denoiser_taps[0] + "x"
    with pytest.raises(ValueError, match=f"Did you mean '{surrogate.denoiser_taps[0]}'"):
        surrogate.denoise(condition, draw, frozenset({wrong}), False)


def test_wrong_views_are_refused(surrogate: Surrogate) -> None:
    views = views_of(surrogate)
    with pytest.raises(ValueError, match="pixels"):
        surrogate.condition(views[..., :-1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        surrogate.condition(views * 255)
    with pytest.raises(ValueError, match="float32"):
        surrogate.condition(views.double())


def test_clip_of_another_length_is_refused(surrogate: Surrogate) -> None:
    clips = views_of(surrogate)[:, None].expand(-1, surrogate.num_frames + 1, -1, -1, -1)
    with pytest.raises(ValueError, match="expected"):
        surrogate.encode_clip(clips)


def test_settings_are_a_keyword_only_dataclass(surrogate: Surrogate) -> None:
    fields = dataclasses.fields(type(surrogate).Config)
    assert fields and all(f.kw_only for f in fields)
