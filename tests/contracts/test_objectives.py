"""What every registered objective promises, on the miniature of a published surrogate."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate
from anti_i2v_lit.types import Condition, Denoised, Draw, Observation, TapRequest

NODES: list[dict[str, Any]] = [
    {"name": "irc"},
    {"name": "irc", "detach_shallow": True},
    {"name": "ira_denoiser", "direction": "toward"},
    {"name": "ira_denoiser", "direction": "away"},
    {"name": "ira_encoder", "direction": "toward"},
    {"name": "ira_encoder", "direction": "away"},
    {"name": "ira_latent", "direction": "toward"},
    {"name": "ira_latent", "direction": "away"},
    {"name": "denoising"},
    {"name": "denoising", "normalise": "clean"},
    {"name": "lpips"},
    {"name": "clip_distance"},
    {"name": "flat_attention"},
    {"name": "latent_zero"},
    {"name": "sds"},
]
# Terms that by design take another gradient than that of their value.
OTHER_GRADIENT = {"sds"}
KEYS = ("first.png", "second.png")


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return CogVideoXSurrogate.tiny()


@pytest.fixture(scope="module")
def clip_fields(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A CLIP of random weights, small, in open_clip's own files."""
    folder = tmp_path_factory.mktemp("clip")
    settings = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "tiny-clip.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(3)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "clip.pt")
    return {"weights": str(folder / "clip.pt"), "architecture": str(folder / "tiny-clip.json")}


@pytest.fixture(params=NODES, ids=lambda node: "-".join(str(v) for v in node.values()))
def objective(request: pytest.FixtureRequest, clip_fields: dict[str, str]) -> Objective:
    extra = clip_fields if request.param["name"] == "clip_distance" else {}
    return OBJECTIVES.build({**request.param, **extra})


@pytest.fixture
def pictures(surrogate: Surrogate) -> dict[str, Tensor]:
    """Two photos, their cloaks (a random start away) and an unrelated image."""
    generator = torch.Generator().manual_seed(11)
    clean = torch.rand(2, 3, *surrogate.view_size, generator=generator) * 0.6 + 0.2
    moved = (torch.rand(clean.shape, generator=generator) * 2 - 1).sign() * 8 / 255
    anchor = torch.rand(clean.shape, generator=generator)
    return {"clean": clean, "cloak": clean + moved, "anchor": anchor}


def observe(surrogate: Surrogate, views: Tensor, draw: Draw, request: TapRequest) -> Observation:
    if not request.needs_condition:
        return Observation(views=views)
    condition = surrogate.condition(views, request.encoder)
    if not request.needs_denoiser:
        return Observation(views=views, condition=condition)
    denoised = surrogate.denoise(condition, draw, request.denoiser, request.prediction)
    return Observation(views=views, condition=condition, denoised=denoised)


def evaluator(
    surrogate: Surrogate, objective: Objective, pictures: dict[str, Tensor], photos: list[int]
) -> Callable[[Tensor], Tensor]:
    """The loss [len(photos)] of cloaked pixels of these photos, at their fixed draws."""
    request = objective.taps(surrogate)
    clean = pictures["clean"][photos]
    clips = clean[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    draw = surrogate.draw(
        surrogate.encode_clip(clips),
        [torch.Generator().manual_seed(i) for i in photos],
        ["a person"] * len(photos),
    )
    with torch.no_grad():
        references = {
            name: observe(surrogate, pictures[name][photos], draw, request)
            for name in request.references
        }
    keys = [KEYS[i] for i in photos]
    return lambda cloak: objective.loss(
        surrogate, observe(surrogate, cloak, draw, request), references, keys, step=7
    )


def test_every_registered_objective_is_tested_here() -> None:
    assert {node["name"] for node in NODES} == set(OBJECTIVES.names())


def test_a_batch_of_two_equals_two_of_one(
    surrogate: Surrogate, objective: Objective, pictures: dict[str, Tensor]
) -> None:
    cloak = pictures["cloak"]
    with torch.no_grad():
        together = evaluator(surrogate, objective, pictures, [0, 1])(cloak)
        alone = [evaluator(surrogate, objective, pictures, [i])(cloak[[i]]) for i in (0, 1)]
    assert together.dtype == torch.float32 and torch.isfinite(together).all()
    assert together[0] != together[1]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_the_gradient_of_a_photo_reaches_its_own_pixels_only(
    surrogate: Surrogate, objective: Objective, pictures: dict[str, Tensor]
) -> None:
    cloak = pictures["cloak"].clone().requires_grad_()
    loss = evaluator(surrogate, objective, pictures, [0, 1])(cloak)
    (gradient,) = torch.autograd.grad(loss[0], cloak)
    assert torch.isfinite(gradient).all()
    assert (gradient[0] != 0).float().mean() > 0.9
    assert (gradient[1] == 0).all()


def test_three_sign_steps_lower_it(
    surrogate: Surrogate,
    objective: Objective,
    pictures: dict[str, Tensor],
    request: pytest.FixtureRequest,
) -> None:
    if request.node.callspec.params["objective"]["name"] in OTHER_GRADIENT:
        pytest.skip("its gradient is not that of its value; see its own tests")
    loss = evaluator(surrogate, objective, pictures, [0, 1])
    cloak = pictures["cloak"].clone()
    before = loss(cloak).detach()
    for _ in range(3):
        cloak.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(cloak).sum(), cloak)
        cloak = (cloak - gradient.sign() / 1024).detach()
    # Steps of a quarter of a grey level: LPIPS is too curved near its minimum for larger ones.
    assert (loss(cloak) < before).all()


def poisoned(observation: Observation) -> Observation:
    """The same observation with every number of the second photo replaced by NaN."""

    def spoil(values: Tensor) -> Tensor:
        values = values.clone()
        values[1] = torch.nan
        return values

    def spoil_all(features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: spoil(value) for name, value in features.items()}

    condition, denoised = observation.condition, observation.denoised
    if condition is not None:
        condition = Condition(
            latents=spoil(condition.latents), features=spoil_all(condition.features)
        )
    if denoised is not None:
        prediction = None if denoised.prediction is None else spoil(denoised.prediction)
        denoised = Denoised(
            prediction=prediction, target=denoised.target, features=spoil_all(denoised.features)
        )
    return Observation(views=spoil(observation.views), condition=condition, denoised=denoised)


def test_a_value_that_is_not_a_number_names_photo_and_step(
    surrogate: Surrogate, objective: Objective, pictures: dict[str, Tensor]
) -> None:
    request = objective.taps(surrogate)
    clips = pictures["clean"][:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
    draw = surrogate.draw(surrogate.encode_clip(clips), generators, ["", ""])
    with torch.no_grad():
        cloak = poisoned(observe(surrogate, pictures["cloak"], draw, request))
        references = {
            name: observe(surrogate, pictures[name], draw, request) for name in request.references
        }
        with pytest.raises(NonFiniteLoss, match=r"step 7 for second\.png"):
            objective.loss(surrogate, cloak, references, KEYS, step=7)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_the_weight_may_be_negative(name: str, clip_fields: dict[str, str]) -> None:
    extra = clip_fields if name == "clip_distance" else {}
    assert OBJECTIVES.build({"name": name, "weight": -2.5, **extra}).weight == -2.5
