"""Draws of the training loss, made once per photo and reused: views, clips, noise, references.

The clip's latent needs no gradient and the references (clean photo, anchor) depend on the draw
only, so a pool of draws encodes and observes each of them once instead of at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from anti_i2v_lit.cloaking.encoder_first import encoded_apart
from anti_i2v_lit.data.framing import View
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Denoised, Draw, Observation, TapRequest


@dataclass(kw_only=True)
class PoolEntry:
    """One draw of one photo.

    Attributes:
        view: what the surrogate sees.
        draw: clip latents, noise and timestep, with a batch of one.
        references: "clean" / "anchor" -> observation with a batch of one; filled on first use.
    """

    view: View
    draw: Draw
    references: dict[str, Observation] = field(default_factory=dict)


@dataclass(kw_only=True)
class DrawPool:
    """The draws of one photo for one surrogate, by index; filled on first use."""

    entries: dict[int, PoolEntry] = field(default_factory=dict)


def observe(
    surrogate: Surrogate,
    views: Tensor,
    draw: Draw | None,
    request: TapRequest,
    *,
    encoder_first: bool = False,
) -> Observation:
    """Run as much of a surrogate as a request needs.

    Args:
        surrogate: the model.
        views: [B, 3, H, W] in [0, 1].
        draw: a draw for B photos; only needed where the request needs the denoiser.
        request: what to look at.
        encoder_first: keep the activations of encoder and denoiser apart (`encoder_first`); the
            result is the same.
    """
    condition = denoised = None
    if request.needs_condition:
        encode = partial(
            surrogate.condition,
            encoder_taps=request.encoder,
            draw=draw,
            embedding=request.needs_denoiser,
        )
        apart = encoder_first and request.needs_denoiser and views.requires_grad
        condition = encoded_apart(encode, views) if apart else encode(views)
    if request.needs_denoiser:
        assert condition is not None and draw is not None
        denoised = surrogate.denoise(condition, draw, request.denoiser, request.prediction)
    return Observation(views=views, condition=condition, denoised=denoised)


def join_draws(draws: Sequence[Draw]) -> Draw:
    """Stack draws of single photos into one batch."""
    return Draw(
        clip_latents=torch.cat([d.clip_latents for d in draws]),
        noise=torch.cat([d.noise for d in draws]),
        timesteps=torch.cat([d.timesteps for d in draws]),
        prompts=tuple(p for d in draws for p in d.prompts),
    )


def join(observations: Sequence[Observation]) -> Observation:
    """Stack observations of single photos into one batch."""
    if len(observations) == 1:
        return observations[0]
    return Observation(
        views=torch.cat([o.views for o in observations]),
        condition=_join_conditions([o.condition for o in observations]),
        denoised=_join_denoised([o.denoised for o in observations]),
    )


def split(observation: Observation, index: int) -> Observation:
    """One photo's part of a batched observation, detached."""
    part = slice(index, index + 1)
    condition, denoised = observation.condition, observation.denoised
    if condition is not None:
        embedding = condition.image_embedding
        condition = Condition(
            latents=condition.latents[part].detach(),
            features={n: f[part].detach() for n, f in condition.features.items()},
            image_embedding=None if embedding is None else embedding[part].detach(),
        )
    if denoised is not None:
        prediction = denoised.prediction
        denoised = Denoised(
            prediction=None if prediction is None else prediction[part].detach(),
            target=denoised.target[part].detach(),
            features={n: f[part].detach() for n, f in denoised.features.items()},
        )
    return Observation(
        views=observation.views[part].detach(), condition=condition, denoised=denoised
    )


def _join_conditions(parts: Sequence[Condition | None]) -> Condition | None:
    first = parts[0]
    if first is None:
        return None
    present = [p for p in parts if p is not None]
    embeddings = [p.image_embedding for p in present if p.image_embedding is not None]
    return Condition(
        latents=torch.cat([p.latents for p in present]),
        features={n: torch.cat([p.features[n] for p in present]) for n in first.features},
        image_embedding=torch.cat(embeddings) if embeddings else None,
    )


def _join_denoised(parts: Sequence[Denoised | None]) -> Denoised | None:
    first = parts[0]
    if first is None:
        return None
    present = [p for p in parts if p is not None]
    predictions = [p.prediction for p in present if p.prediction is not None]
    return Denoised(
        prediction=torch.cat(predictions) if predictions else None,
        target=torch.cat([p.target for p in present]),
        features={n: torch.cat([p.features[n] for p in present]) for n in first.features},
    )
