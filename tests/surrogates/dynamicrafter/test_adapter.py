"""The surrogate: both ways of the photo, the schedule against diffusers, and what it saves."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler

from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.dynamicrafter.adapter import (
    DynamiCrafterSurrogate,
    DynamiCrafterSurrogateConfig,
)
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_parts
from anti_i2v_lit.surrogates.dynamicrafter.model import Schedule
from anti_i2v_lit.surrogates.dynamicrafter.settings import PUBLISHED
from anti_i2v_lit.surrogates.parameterisation import Parameterisation
from anti_i2v_lit.types import Draw

PROMPTS = ["a person is talking", "smile"]


def surrogate_of(
    kind: Parameterisation = Parameterisation.VELOCITY, **fields: object
) -> DynamiCrafterSurrogate:
    return DynamiCrafterSurrogate(DynamiCrafterSurrogateConfig(**fields), tiny_parts(kind))


def photos(size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))


def draw_of(surrogate: DynamiCrafterSurrogate) -> Draw:
    views = photos(surrogate.view_size)
    clips = views[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    return surrogate.draw(surrogate.encode_clip(clips), generators, PROMPTS)


def test_photo_enters_by_its_latent_and_by_its_image_tokens() -> None:
    surrogate = surrogate_of()
    draw = draw_of(surrogate)
    condition = surrogate.condition(photos())
    assert condition.image_embedding is not None
    # 16 tokens for each of 3 frames, as wide as the context.
    assert condition.image_embedding.shape == (2, 48, 16)
    ways = {"latents": condition.latents, "image_embedding": condition.image_embedding}
    for name, value in ways.items():
        one = dataclasses.replace(condition, **{name: value.detach().requires_grad_()})
        answer = surrogate.denoise(one, draw, frozenset(), True).prediction
        assert answer is not None
        (gradient,) = torch.autograd.grad(answer.square().sum(), getattr(one, name))
        assert (gradient.flatten(1).abs().amax(1) > 0).all(), name
    views = photos().requires_grad_()
    tokens = surrogate.condition(views).image_embedding
    assert tokens is not None
    (gradient,) = torch.autograd.grad(tokens.square().sum(), views)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("kind", [Parameterisation.VELOCITY, Parameterisation.EPSILON])
def test_target_is_that_of_diffusers_on_rescaled_latents(kind: Parameterisation) -> None:
    surrogate = surrogate_of(kind)
    velocity = kind is Parameterisation.VELOCITY
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=velocity,
    )
    draw = draw_of(surrogate)
    draw = dataclasses.replace(draw, timesteps=torch.tensor([100, 999]))
    target = surrogate.denoise(surrogate.condition(photos()), draw, frozenset(), False).target
    # Dynamic rescale: from 1 at timestep 0 to 0.7 at 399, then 0.7.
    factors = torch.tensor([1 - 0.3 * 100 / 399, 0.7]) if velocity else torch.ones(2)
    clean = draw.clip_latents * factors[:, None, None, None, None]
    expected = draw.noise
    if velocity:
        expected = scheduler.get_velocity(clean, draw.noise, draw.timesteps)
    torch.testing.assert_close(target, expected, atol=1e-5, rtol=1e-4)


def test_schedules_of_the_published_models_are_those_of_diffusers() -> None:
    for size, ends_in_noise in ((256, False), (512, True), (1024, True)):
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            rescale_betas_zero_snr=ends_in_noise,
        )
        found = Schedule(PUBLISHED[size]).alphas_cumprod
        torch.testing.assert_close(found, scheduler.alphas_cumprod, atol=1e-6, rtol=1e-4)
        assert (found[-1] == 0) == ends_in_noise


def test_frame_rate_and_length_are_the_models_own_unless_given() -> None:
    own = surrogate_of()
    draw, condition = draw_of(own), own.condition(photos())
    answers = [
        s.denoise(condition, draw, frozenset(), True).prediction
        for s in (own, surrogate_of(fps=24), surrogate_of(fps=8))
    ]
    assert all(a is not None for a in answers)
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2], atol=1e-5)
    shorter = surrogate_of(num_frames=2)
    assert shorter.num_frames == 2
    tokens = shorter.condition(photos()).image_embedding
    assert tokens is not None and condition.image_embedding is not None
    torch.testing.assert_close(tokens, condition.image_embedding[:, :32])
    clip = draw_of(shorter)
    features = shorter.denoise(
        shorter.condition(photos()), clip, frozenset({"middle"}), False
    ).features
    # 2 frames of 4 x 4 places after one halving of 8 x 8 latents, 64 channels.
    assert features["middle"].shape == (2, 32, 64)
    with pytest.raises(ValueError, match="expected 2 frames, got 3"):
        shorter.denoise(shorter.condition(photos()), draw, frozenset(), True)


def run_counted(
    surrogate: DynamiCrafterSurrogate, taps: set[str], prediction: bool
) -> tuple[dict[str, int], torch.Tensor | None]:
    """How often each part ran in a forward and backward pass, and the gradient."""
    counts: dict[str, int] = {}
    unet, first_stage, embedder, resampler, _ = surrogate.modules
    parts = {"first_stage": first_stage.encoder.mid.block_1, "resampler": resampler}
    parts["clip"] = embedder.model.visual.transformer.resblocks[0]
    for name in surrogate.denoiser_taps:
        parts[name] = unet._block(name)
    handles = [
        part.register_forward_pre_hook(
            lambda module, given, name=name: counts.update({name: counts.get(name, 0) + 1})
        )
        for name, part in parts.items()
    ]
    draw = draw_of(surrogate)
    counts.clear()
    views = photos().requires_grad_()
    denoised = surrogate.denoise(surrogate.condition(views), draw, frozenset(taps), prediction)
    values = [*denoised.features.values()]
    values += [] if denoised.prediction is None else [denoised.prediction]
    if values:
        sum(v.square().mean() for v in values).backward()
    for handle in handles:
        handle.remove()
    return counts, views.grad


def test_blocks_after_the_deepest_tap_do_not_run() -> None:
    surrogate = surrogate_of()
    encoding = {"first_stage", "clip", "resampler"}
    assert run_counted(surrogate, {"input.1"}, False)[0].keys() == encoding | {
        "input.0",
        "input.1",
    }
    ran = run_counted(surrogate, {"input.1", "output.1"}, False)[0].keys()
    assert "output.1" in ran and "output.2" not in ran
    assert run_counted(surrogate, {"input.1"}, True)[0].keys() == encoding | set(
        surrogate.denoiser_taps
    )
    assert run_counted(surrogate, set(), False)[0].keys() == encoding


def test_checkpointing_is_on_in_eval_mode_and_changes_nothing() -> None:
    once, expected = run_counted(surrogate_of(), {"middle"}, True)
    twice, found = run_counted(surrogate_of(activation_checkpointing=True), {"middle"}, True)
    assert set(once.values()) == {1} and set(twice.values()) == {2}
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_checkpointing_stores_less() -> None:
    stored = {}
    for on in (False, True):
        surrogate = surrogate_of(activation_checkpointing=on)
        draw = draw_of(surrogate)
        size = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.numel() * (not isinstance(tensor, torch.nn.Parameter))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            condition = surrogate.condition(photos().requires_grad_())
            surrogate.denoise(condition, draw, frozenset(), True)
        stored[on] = size
    assert stored[True] < 0.25 * stored[False]


def test_bfloat16_surrogate_answers_in_float32_and_agrees(tiny_folder) -> None:
    answers = []
    for dtype in ("float32", "bfloat16"):
        surrogate = SURROGATES.build(
            {"name": "dynamicrafter", "path": str(tiny_folder), "dtype": dtype}
        )
        weights = {p.dtype for m in surrogate.modules for p in m.parameters()}
        assert weights == {getattr(torch, dtype)}
        views = photos().requires_grad_()
        condition = surrogate.condition(views, frozenset({"encoder.mid"}))
        answer = surrogate.denoise(condition, draw_of(surrogate), frozenset({"middle"}), True)
        assert answer.prediction is not None
        values = (answer.prediction, answer.features["middle"], condition.image_embedding)
        assert {v.dtype for v in values} == {torch.float32}
        (gradient,) = torch.autograd.grad(answer.prediction.square().sum(), views)
        answers.append((answer.prediction, gradient))
    for full, half in zip(*answers, strict=True):
        cosine = torch.nn.functional.cosine_similarity(full.flatten(), half.flatten(), dim=0)
        assert cosine > 0.97


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 36}, "multiples of 8 pixels, got 36 x 32"),
        ({"num_frames": 4}, "at most 3"),
        ({"num_frames": -1}, "num_frames"),
        ({"fps": -1}, "fps"),
        ({"size": 768}, "size must be"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_what_the_model_cannot_take_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surrogate_of(**fields)


def test_other_view_sizes_work() -> None:
    surrogate = surrogate_of(height=24, width=48)
    condition = surrogate.condition(photos((24, 48)))
    answer = surrogate.denoise(condition, draw_of(surrogate), frozenset(), True).prediction
    assert answer is not None and answer.shape == (2, 3, 4, 6, 12)
