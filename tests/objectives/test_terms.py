"""Values of single terms, from their formulas on hand-made features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Denoised, Observation

BLOCKS = tuple(f"block.{i}" for i in range(8))


@dataclass
class NamesOnly:
    """The only two things that a term may ask of a surrogate."""

    denoiser_taps: tuple[str, ...] = BLOCKS
    encoder_taps: tuple[str, ...] = ("level.0", "level.1")


NAMES = cast(Surrogate, NamesOnly())


def observation(seed: int, prediction: Tensor | None = None) -> Observation:
    """Views, latent, encoder levels and blocks of random numbers."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    levels = {"level.0": random(2, 3, 8, 8), "level.1": random(2, 6, 4, 4)}
    return Observation(
        views=torch.rand(2, 3, 64, 64, generator=generator),
        condition=Condition(latents=random(2, 4, 4, 4), features=levels),
        denoised=Denoised(
            prediction=prediction,
            target=torch.zeros(2, 1, 4, 4, 4),
            features={name: random(2, 10, 6) for name in BLOCKS},
        ),
    )


CLEAN, CLOAK, ANCHOR = observation(0), observation(1), observation(2)


def value(objective: Objective, cloak: Observation = CLOAK) -> np.ndarray:
    request = objective.taps(NAMES)
    references = {"clean": CLEAN, "anchor": ANCHOR}
    asked = {name: references[name] for name in request.references}
    return objective.loss(NAMES, cloak, asked, ("a", "b"), step=0).numpy()


def array(observed: Observation, block: int) -> np.ndarray:
    assert observed.denoised is not None
    return observed.denoised.features[BLOCKS[block]].numpy().astype(np.float64)


def test_collapse_follows_its_formula_with_block_three_and_the_last_three() -> None:
    parts = []
    for deep in (5, 6, 7):
        moved = ((array(CLOAK, deep) - array(CLOAK, 2)) ** 2).mean(axis=(1, 2))
        clean = ((array(CLEAN, deep) - array(CLEAN, 2)) ** 2).mean(axis=(1, 2))
        parts.append(moved / clean)
    np.testing.assert_allclose(
        value(OBJECTIVES.build({"name": "irc"})), np.mean(parts, axis=0), rtol=1e-5
    )


def test_collapse_is_one_at_the_clean_photo_and_zero_when_blocks_agree() -> None:
    objective = OBJECTIVES.build({"name": "irc"})
    np.testing.assert_allclose(value(objective, CLEAN), [1, 1], rtol=1e-6)
    assert CLOAK.denoised is not None
    same = dict.fromkeys(BLOCKS, CLOAK.denoised.features[BLOCKS[0]])
    denoised = Denoised(prediction=None, target=CLOAK.denoised.target, features=same)
    collapsed = Observation(views=CLOAK.views, condition=CLOAK.condition, denoised=denoised)
    np.testing.assert_array_equal(value(objective, collapsed), [0, 0])


def test_a_detached_shallow_tap_gets_no_gradient() -> None:
    assert CLOAK.denoised is not None
    for detach, wanted in ((True, False), (False, True)):
        features = {n: f.clone().requires_grad_() for n, f in CLOAK.denoised.features.items()}
        denoised = Denoised(prediction=None, target=CLOAK.denoised.target, features=features)
        objective = OBJECTIVES.build({"name": "irc", "detach_shallow": detach})
        cloak = Observation(views=CLOAK.views, denoised=denoised)
        objective.loss(NAMES, cloak, {"clean": CLEAN}, ("a", "b"), 0).sum().backward()
        assert (features[BLOCKS[2]].grad is not None) == wanted
        assert features[BLOCKS[7]].grad is not None


def test_collapse_refuses_a_tap_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="also in deep_taps"):
        OBJECTIVES.build({"name": "irc", "shallow_tap": "block.7", "deep_taps": ["block.7"]})
    objective = OBJECTIVES.build({"name": "irc", "deep_taps": ["block.2"]})
    with pytest.raises(ValueError, match="also a deep tap"):
        objective.taps(NAMES)
    with pytest.raises(ValueError, match="at least 2 denoiser taps"):
        objective.taps(NamesOnly(denoiser_taps=("block.0",)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("direction", "sign"), [("toward", 1), ("away", -1)])
def test_latent_anchor_is_a_distance_in_clean_variances(direction: str, sign: int) -> None:
    goal = ANCHOR if direction == "toward" else CLEAN
    moved, target, clean = (
        o.condition.latents.numpy().reshape(2, -1).astype(np.float64)  # type: ignore[union-attr]
        for o in (CLOAK, goal, CLEAN)
    )
    expected = sign * ((moved - target) ** 2).mean(axis=1) / clean.var(axis=1)
    objective = OBJECTIVES.build({"name": "ira_latent", "direction": direction})
    np.testing.assert_allclose(value(objective), expected, rtol=1e-5)


def test_toward_is_zero_at_the_anchor_and_away_is_zero_at_the_photo() -> None:
    for name in ("ira_denoiser", "ira_encoder", "ira_latent"):
        toward = OBJECTIVES.build({"name": name, "direction": "toward"})
        np.testing.assert_array_equal(value(toward, ANCHOR), [0, 0])
        away = OBJECTIVES.build({"name": name, "direction": "away"})
        np.testing.assert_array_equal(value(away, CLEAN), [0, 0])
        assert (value(away, CLOAK) < 0).all()
        assert away.taps(NAMES).references == {"clean"}


def test_weights_mean_the_same_whatever_the_scale_of_the_features() -> None:
    def scaled(observed: Observation) -> Observation:
        assert observed.condition is not None
        larger = {n: 1000 * f for n, f in observed.condition.features.items()}
        condition = Condition(latents=observed.condition.latents, features=larger)
        return Observation(views=observed.views, condition=condition)

    objective = OBJECTIVES.build({"name": "ira_encoder"})
    plain = value(objective)
    references = {"clean": scaled(CLEAN), "anchor": scaled(ANCHOR)}
    large = objective.loss(NAMES, scaled(CLOAK), references, ("a", "b"), 0)
    np.testing.assert_allclose(large, plain, rtol=1e-4)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown direction 'towards'. Did you mean 'toward'"):
        OBJECTIVES.build({"name": "ira_latent", "direction": "towards"})


def test_denoising_is_minus_the_training_loss() -> None:
    ones = torch.ones(2, 1, 4, 4, 4)
    cloak = observation(1, prediction=ones * torch.tensor([1.0, 3.0])[:, None, None, None, None])
    objective = OBJECTIVES.build({"name": "denoising"})
    np.testing.assert_allclose(value(objective, cloak), [-1, -9])
    relative = OBJECTIVES.build({"name": "denoising", "normalise": "clean"})
    request = relative.taps(NAMES)
    assert request.prediction and request.references == {"clean"}
    clean = observation(0, prediction=2 * ones)
    loss = relative.loss(NAMES, cloak, {"clean": clean}, ("a", "b"), 0)
    np.testing.assert_allclose(loss, [-1 / 4, -9 / 4])


def test_lpips_needs_no_surrogate_and_is_zero_for_equal_views() -> None:
    objective = OBJECTIVES.build({"name": "lpips"})
    assert not objective.taps(NAMES).needs_condition
    np.testing.assert_allclose(value(objective, CLEAN), [0, 0], atol=1e-7)
    assert (value(objective) > 0.1).all()


@pytest.mark.parametrize("weights", ["", "/nowhere/clip.pt"])
def test_missing_clip_weights_say_how_to_get_them_or_do_without(weights: str) -> None:
    with pytest.raises(ValueError, match="(?s)open_clip.create_model.*do without"):
        OBJECTIVES.build({"name": "clip_distance", "weights": weights})
