"""Terms of the published baselines: closed forms, and their gradients on every surrogate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Denoised, Observation

RNG = np.random.default_rng(7)


@dataclass
class NamesOnly:
    denoiser_taps: tuple[str, ...] = ("block.0", "block.1")
    encoder_taps: tuple[str, ...] = ()


NAMES = cast(Surrogate, NamesOnly())


class NoWayBack(torch.autograd.Function):
    """A denoiser that predicts three times the latent and must not be differentiated."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor) -> Tensor:
        return 3.0 * latents

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise AssertionError("the denoiser was differentiated")


def through_matrix(photos: Tensor, matrix: Tensor, target: Tensor) -> Observation:
    """A linear encoder [16 x 12] in front of a two-frame denoiser."""
    latents = (photos.flatten(1) @ matrix.T).view(-1, 1, 4, 4)
    predicted = NoWayBack.apply(latents)[:, None].expand(-1, 2, -1, -1, -1)
    return Observation(
        views=photos,
        condition=Condition(latents=latents),
        denoised=Denoised(prediction=predicted, target=target, features={}),
    )


@pytest.mark.parametrize("weight", [1.0, -2.0])
def test_score_distillation_carries_the_error_through_the_encoder_alone(weight: float) -> None:
    photos = torch.tensor(RNG.uniform(size=(2, 3, 2, 2)), dtype=torch.float32).requires_grad_()
    matrix = torch.tensor(RNG.normal(size=(16, 12)), dtype=torch.float32)
    target = torch.tensor(RNG.normal(size=(2, 2, 1, 4, 4)), dtype=torch.float32)
    objective = OBJECTIVES.build({"name": "sds", "weight": weight})
    loss = objective.loss(NAMES, through_matrix(photos, matrix, target), {}, ("a", "b"), 0)
    (gradient,) = torch.autograd.grad((objective.weight * loss).sum(), photos)

    flat = photos.detach().numpy().reshape(2, 12) @ matrix.numpy().T
    error = 3.0 * flat[:, None] - target.numpy().reshape(2, 2, 16)
    np.testing.assert_allclose(loss.detach(), -(error**2).mean(axis=(1, 2)), rtol=1e-5)
    # weight > 0 is ascent on the training loss: steps go along +J^T error.
    expected = -weight * (error.mean(axis=1) / 16) @ matrix.numpy()
    np.testing.assert_allclose(gradient.reshape(2, 12), expected, rtol=1e-4, atol=1e-6)


def test_a_latent_unlike_the_prediction_is_refused() -> None:
    observation = Observation(
        views=torch.rand(1, 3, 8, 8),
        condition=Condition(latents=torch.rand(1, 3, 4, 4)),
        denoised=Denoised(
            prediction=torch.rand(1, 2, 4, 4, 4), target=torch.rand(1, 2, 4, 4, 4), features={}
        ),
    )
    with pytest.raises(ValueError, match="use the objective 'denoising'"):
        OBJECTIVES.build({"name": "sds"}).loss(NAMES, observation, {}, ("a",), 0)


def test_zero_latent_is_the_mean_square_in_clean_variances() -> None:
    cloak, clean = RNG.normal(1.0, 2.0, (2, 4, 3, 3)), RNG.normal(-1.0, 3.0, (2, 4, 3, 3))
    latents = torch.tensor(cloak, dtype=torch.float32).requires_grad_()

    def seen(values: Tensor) -> Observation:
        return Observation(views=torch.rand(2, 3, 8, 8), condition=Condition(latents=values))

    reference = seen(torch.tensor(clean, dtype=torch.float32))
    objective = OBJECTIVES.build({"name": "latent_zero"})
    loss = objective.loss(NAMES, seen(latents), {"clean": reference}, ("a", "b"), 0)
    variance = clean.reshape(2, -1).var(axis=1)
    np.testing.assert_allclose(
        loss.detach(), (cloak.reshape(2, -1) ** 2).mean(axis=1) / variance, rtol=1e-5
    )
    (gradient,) = torch.autograd.grad(loss.sum(), latents)
    np.testing.assert_allclose(gradient, 2 * cloak / 36 / variance[:, None, None, None], rtol=1e-4)


def pointedness(tokens: np.ndarray, temperature: float) -> float:
    """The attention term of one clip, [N, D], by NumPy's own correlation."""
    scores = np.exp(np.corrcoef(tokens) / temperature)
    weights = scores / scores.sum(axis=1, keepdims=True)
    return float((weights**2).sum(axis=1).mean())


def attention(tokens: Tensor, **fields: object) -> Tensor:
    features = {"block.0": tokens, "block.1": 2 * tokens + 1}
    observed = Observation(
        views=torch.rand(len(tokens), 3, 8, 8),
        denoised=Denoised(prediction=None, target=torch.zeros(len(tokens)), features=features),
    )
    objective = OBJECTIVES.build({"name": "flat_attention", **fields})
    assert objective.taps(NAMES).denoiser == {"block.0", "block.1"}
    return objective.loss(NAMES, observed, {}, tuple("abc"[: len(tokens)]), 0)


def test_attention_follows_the_correlations_of_the_tokens_whatever_their_scale() -> None:
    tokens = RNG.normal(size=(3, 10, 7))
    values = attention(torch.tensor(tokens, dtype=torch.float32), temperature=0.3)
    np.testing.assert_allclose(values, [pointedness(t, 0.3) for t in tokens], rtol=1e-4)


def test_attention_is_one_share_when_tokens_agree_and_one_when_none_do() -> None:
    same = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(1)).expand(1, 8, 6)
    np.testing.assert_allclose(attention(same), [1 / 8], rtol=1e-5)
    # Rows of a Hadamard matrix without its constant row are uncorrelated.
    halves = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    rows = torch.kron(torch.kron(halves, halves), halves)[1:][None]
    np.testing.assert_allclose(attention(rows, temperature=0.02), [1.0], rtol=1e-5)


def test_the_gradient_of_attention_is_that_of_its_formula() -> None:
    tokens = RNG.normal(size=(6, 5))
    leaf = torch.tensor(tokens[None], dtype=torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(attention(leaf, temperature=0.5).sum(), leaf)
    numeric, step = np.zeros_like(tokens), 1e-6
    for place in np.ndindex(*tokens.shape):
        moved = np.zeros_like(tokens)
        moved[place] = step
        difference = pointedness(tokens + moved, 0.5) - pointedness(tokens - moved, 0.5)
        numeric[place] = difference / (2 * step)
    np.testing.assert_allclose(gradient[0], numeric, rtol=2e-3, atol=1e-5)


def test_attention_looks_at_no_more_tokens_than_it_may() -> None:
    tokens = RNG.normal(size=(1, 9, 7))
    few = attention(torch.tensor(tokens, dtype=torch.float32), max_tokens=5)
    np.testing.assert_allclose(few, [pointedness(tokens[0, ::2], 0.1)], rtol=1e-4)


@pytest.mark.parametrize("name", SURROGATES.names())
def test_every_surrogate_serves_the_terms_of_the_baselines(name: str) -> None:
    surrogate = SURROGATES.load(name).tiny()
    clean = torch.rand(1, 3, *surrogate.view_size, generator=torch.Generator().manual_seed(2))
    clips = clean[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    draw = surrogate.draw(
        surrogate.encode_clip(clips), [torch.Generator().manual_seed(3)], ["a person"]
    )
    for term in ("sds", "latent_zero", "flat_attention"):
        objective = OBJECTIVES.build({"name": term})
        request = objective.taps(surrogate)
        cloak = (clean + 4 / 255).clamp(0, 1).requires_grad_()
        condition = surrogate.condition(cloak, draw=draw)
        denoised = None
        if request.needs_denoiser:
            denoised = surrogate.denoise(condition, draw, request.denoiser, request.prediction)
        seen = Observation(views=cloak, condition=condition, denoised=denoised)
        clear = Observation(views=clean, condition=surrogate.condition(clean, draw=draw))
        loss = objective.loss(surrogate, seen, {"clean": clear}, ("a",), 0)
        (gradient,) = torch.autograd.grad(loss.sum(), cloak)
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, term
