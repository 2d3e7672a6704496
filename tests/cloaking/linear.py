"""A surrogate whose every answer is known without running a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.ensemble import EnsembleConfig, WeightedSurrogate
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.cloaking.peers import Peers
from anti_i2v_lit.cloaking.transforms import DrawnTransform
from anti_i2v_lit.data.framing import Framing, FramingConfig
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.spaces import SPACES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Denoised, Draw

SIDE = 12


class LinearSurrogate(Surrogate):
    """The latent is the view; the denoiser answers the noise plus the latent."""

    def __init__(self, side: int = SIDE) -> None:
        self._side, self._weights = side, nn.Linear(1, 1)
        self.encoded_clips = 0
        self.timesteps_seen: list[int] = []
        self.freeze()

    @classmethod
    def tiny(cls) -> Self:
        return cls()

    @property
    def modules(self) -> Sequence[nn.Module]:
        return (self._weights,)

    @property
    def view_size(self) -> tuple[int, int]:
        return self._side, self._side

    @property
    def num_frames(self) -> int:
        return 1

    @property
    def num_timesteps(self) -> int:
        return 1000

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        return ("block.0", "block.1")

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        return ("level.0",)

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        return Condition(latents=views, features={name: 2 * views for name in encoder_taps})

    def _encode_clip(self, clips: Tensor) -> Tensor:
        self.encoded_clips += 1
        return clips

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        if condition.latents.requires_grad:
            self.timesteps_seen += draw.timesteps.tolist()
        answer = draw.noise + condition.latents[:, None]
        tokens = answer.flatten(2).transpose(1, 2)
        features = {name: tokens * (1 + i) for i, name in enumerate(self.denoiser_taps)}
        return Denoised(
            prediction=answer if prediction else None,
            target=draw.noise,
            features={name: features[name] for name in taps},
        )


def make_loop(
    objectives: Sequence[Mapping[str, Any]],
    surrogates: Mapping[str, tuple[Surrogate, float]] | None = None,
    *,
    space: Mapping[str, Any] | None = None,
    framing: Mapping[str, Any] | None = None,
    transforms: Sequence[DrawnTransform] = (),
    ensemble: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    peers: Peers | None = None,
    **attack: Any,
) -> CloakLoop:
    """A loop whose views are the whole canvas, unless `framing` says otherwise."""
    whole = {"crop_weight": 0, "face_weight": 0, "letterbox_weight": 0, "stretch_weight": 1}
    given = surrogates or {"linear": (LinearSurrogate(), 1.0)}
    terms = {str(node["name"]): OBJECTIVES.build(node) for node in objectives}
    return CloakLoop(
        seed=5,
        config=AttackConfig(**{"random_start": 0.0, "num_draws": 3, "momentum": 0.0, **attack}),
        space=SPACES.build(space or {"name": "rgb"}),
        surrogates=[
            WeightedSurrogate(name=name, surrogate=surrogate, weight=weight, objectives=terms)
            for name, (surrogate, weight) in given.items()
        ],
        framing=Framing(FramingConfig(**{"canvas_side_px": 16, **(framing or whole)})),
        transforms=transforms,
        ensemble=EnsembleConfig(**(ensemble or {})),
        weights=weights,
        peers=peers,
    )


def make_job(key: str = "a.png", side: int = SIDE, budget_8bit: float = 16.0) -> PhotoJob:
    """A photo of random colours, away from the limits of the range."""
    seed = sum(key.encode())
    photo = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return PhotoJob(
        key=key,
        photo_size=(side, side),
        canvas=0.2 + 0.6 * photo,
        faces=(),
        budget_8bit=budget_8bit,
    )


def optimiser_of(jobs: Sequence[PhotoJob], momentum: float = 0.0) -> SignDescent:
    """An optimiser that knows the parameters of these jobs."""
    optimiser = SignDescent(momentum)
    for job in jobs:
        optimiser.add_photo(job.parameters.values())
    return optimiser


def run(loop: CloakLoop, jobs: Sequence[PhotoJob], steps: int) -> list[dict[str, dict[str, float]]]:
    """Begin and take steps; the reports."""
    for job in jobs:
        loop.begin(job)
    optimiser = optimiser_of(jobs, loop.config.momentum)
    return [loop.step(jobs, optimiser) for _ in range(steps)]
