"""What the product is measured against: a single-photo loop of the published scripts' kind."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from anti_i2v_lit.cloaking.anchor import anchor_image
from anti_i2v_lit.cloaking.draws import observe
from anti_i2v_lit.cloaking.ensemble import WeightedSurrogate
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.types import Observation, TapRequest


class PlainLoop:
    """One photo at a time, nothing reused: same surrogates, objectives, space, steps.

    Each step draws a new view, timestep and noise; encodes the clip of the cloaked photo with
    gradients; runs all blocks of the denoiser; and observes the clean photo and the anchor anew.

    Args:
        loop: whose parts are used; its own way of stepping is not.
    """

    def __init__(self, loop: CloakLoop) -> None:
        self.loop = loop
        self._requests = {}
        for weighted in loop.surrogates:
            request = TapRequest(prediction=True)
            for objective in weighted.objectives.values():
                request = request | objective.taps(weighted.surrogate)
            self._requests[weighted.name] = request

    def run(self, job: PhotoJob, steps: int) -> None:
        """Attack one photo that the loop has begun."""
        optimiser = SignDescent(self.loop.config.momentum)
        optimiser.add_photo(job.parameters.values())
        for _ in range(steps):
            self._step(job, optimiser)

    def _step(self, job: PhotoJob, optimiser: SignDescent) -> None:
        config, space = self.loop.config, self.loop.space
        sizes = space.step_sizes(job.canvas, job.step, config.step_8bit, job.budget_8bit)
        moving = {job.parameters[name]: size for name, size in sizes.items()}
        total = torch.zeros((), device=job.canvas.device)
        for weighted in self.loop.surrogates:
            total = total + weighted.weight * self._loss(job, weighted)
        gradients = torch.autograd.grad(total, list(moving))
        for parameter, gradient in zip(moving, gradients, strict=True):
            parameter.grad = gradient
        ways = {p: partial(space.direction, n, job.canvas) for n, p in job.parameters.items()}
        optimiser.set_step_sizes(moving, ways)
        optimiser.step()
        job.assign(space.project(job.canvas, dict(job.parameters), job.budget_8bit))
        job.step += 1

    def _loss(self, job: PhotoJob, weighted: WeightedSurrogate) -> Tensor:
        loop, surrogate = self.loop, weighted.surrogate
        request = self._requests[weighted.name]
        generator = generator_for(loop.seed, job.key, job.step, "plain loop")
        size = surrogate.view_size
        view = loop.framing.draw_view(job.photo_size, size, job.faces, generator)
        shown = loop.framing.render(loop.cloaked_canvas(job), view, size)
        clips = shown[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
        # The public method has no gradient, on purpose; the published scripts pay for one.
        latents = surrogate._encode_clip(clips)
        draw = surrogate.draw(
            latents,
            [generator],
            [loop.config.texts_for(job.caption)[0]],
            (loop.config.timestep_low, loop.config.timestep_high),
        )
        cloak = observe(surrogate, shown, draw, request)
        images = {"anchor": anchor_image(loop.config.anchor, *size).to(shown)}
        with torch.no_grad():
            images["clean"] = loop.framing.render(job.canvas, view, size)
            references: dict[str, Observation] = {
                name: observe(surrogate, images[name], draw, request)
                for name in sorted(request.references)
            }
        losses = [
            objective.weight * objective.loss(surrogate, cloak, references, [job.key], job.step)[0]
            for objective in weighted.objectives.values()
        ]
        return torch.stack(losses).sum()
