"""The only place where a gradient meets a photo."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.cloaking.anchor import anchor_image
from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.draws import (
    DrawPool,
    PoolEntry,
    join,
    join_draws,
    observe,
    split,
)
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.cloaking.transforms import DrawnTransform
from anti_i2v_lit.data.framing import Framing, View
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.spaces.base import PerturbationSpace
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Draw, Observation, TapRequest

VERIFICATION = 1_000_000  # pool indices from here on are never drawn by the attack


@dataclass(frozen=True, kw_only=True)
class WeightedSurrogate:
    """A surrogate and its factor in the total."""

    name: str
    surrogate: Surrogate
    weight: float


class CloakLoop:
    """Steps photos in flight downhill on the weighted sum of objectives.

    The loop owns no state of a photo (that is in `PhotoJob`) and knows nothing of files or
    Lightning. Each photo's draws, transforms and start come from its own key, so its result does
    not depend on the photos beside it.

    Args:
        seed: seed of all randomness.
        config: the attack.
        space: where the photos may change.
        objectives: name -> term of the loss.
        surrogates: white-box models with weights.
        framing: canvas to views.
        transforms: expectation over transforms, possibly empty.
    """

    def __init__(
        self,
        *,
        seed: int,
        config: AttackConfig,
        space: PerturbationSpace,
        objectives: Mapping[str, Objective],
        surrogates: Sequence[WeightedSurrogate],
        framing: Framing,
        transforms: Sequence[DrawnTransform],
    ) -> None:
        if not objectives or not surrogates:
            raise ValueError(
                f"expected at least one objective and one surrogate, got {len(objectives)} and "
                f"{len(surrogates)}"
            )
        self.seed, self.config, self.space = seed, config, space
        self.objectives, self.surrogates = dict(objectives), tuple(surrogates)
        self.framing, self.transforms = framing, tuple(transforms)
        self._requests = [self._request(s.surrogate) for s in self.surrogates]
        self._anchors: list[Observation | None] = [None] * len(self.surrogates)

    def _request(self, surrogate: Surrogate) -> TapRequest:
        request = TapRequest()
        for objective in self.objectives.values():
            request = request | objective.taps(surrogate)
        return request

    def begin(self, job: PhotoJob) -> None:
        """Give a job its starting parameters and empty pools for its current attempt."""
        generator = generator_for(self.seed, job.key, job.attempt, "start")
        job.set_parameters(
            self.space.start(job.canvas, job.budget_8bit, [generator], self.config.random_start)
        )
        job.step = 0
        self.attach_pools(job)

    def attach_pools(self, job: PhotoJob) -> None:
        """Give a (resumed) job empty pools; their content is a function of its key."""
        job.pools = [DrawPool() for _ in self.surrogates]

    def cloaked_canvas(self, job: PhotoJob) -> Tensor:
        """The cloaked canvas [1, 3, h, w] of a job, differentiable in its parameters."""
        return self.space.decode(job.canvas, dict(job.parameters), job.budget_8bit)

    def step(self, jobs: Sequence[PhotoJob], optimiser: SignDescent) -> dict[str, dict[str, float]]:
        """Take one sign step on every job.

        Args:
            jobs: photos in flight, each with parameters known to the optimiser.
            optimiser: takes the step; projection is done here.

        Returns:
            Photo key -> term name ("surrogate/objective", "total") -> loss before the step.

        Raises:
            NonFiniteLoss: a loss or gradient became NaN or infinite.
        """
        started = time.perf_counter()
        sizes: dict[nn.Parameter, Tensor] = {}
        for job in jobs:
            found = self.space.step_sizes(
                job.canvas, job.step, self.config.step_8bit, job.budget_8bit
            )
            sizes.update({job.parameters[name]: size for name, size in found.items()})
        report = self._set_gradients(jobs, list(sizes))
        followers = self.space.proportional_groups()
        optimiser.set_step_sizes(
            sizes, [j.parameters[n] for j in jobs for n in followers if n in j.parameters]
        )
        optimiser.step()
        spent = (time.perf_counter() - started) / len(jobs)
        for job in jobs:
            job.assign(self.space.project(job.canvas, dict(job.parameters), job.budget_8bit))
            job.step += 1
            job.seconds += spent
        return report

    def _set_gradients(
        self, jobs: Sequence[PhotoJob], moving: list[nn.Parameter]
    ) -> dict[str, dict[str, float]]:
        """Fill `.grad` of the moving parameters; one surrogate's activations exist at a time."""
        report: dict[str, dict[str, float]] = {job.key: {"total": 0.0} for job in jobs}
        for parameter in moving:
            parameter.grad = torch.zeros_like(parameter)
        for index, weighted in enumerate(self.surrogates):
            canvases = [self._transformed(job, self.cloaked_canvas(job)) for job in jobs]
            entries = [self._entry(job, index, self._drawn_index(job)) for job in jobs]
            losses = self._losses(jobs, index, canvases, entries)
            total = weighted.weight * losses["total"]
            gradients = torch.autograd.grad(total.sum(), moving)
            for parameter, gradient in zip(moving, gradients, strict=True):
                assert parameter.grad is not None
                parameter.grad += gradient
            for position, job in enumerate(jobs):
                for term, values in losses.items():
                    name = term if term == "total" else f"{weighted.name}/{term}"
                    value = values[position].item() * (weighted.weight if term == "total" else 1)
                    report[job.key][name] = report[job.key].get(name, 0.0) + value
        self._check_gradients(jobs)
        return report

    def _check_gradients(self, jobs: Sequence[PhotoJob]) -> None:
        for job in jobs:
            for name, parameter in job.parameters.items():
                if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                    raise NonFiniteLoss(
                        f"the gradient of {name!r} became non-finite at step {job.step} for "
                        f"{job.key}; run the surrogate in float32",
                        (job.key,),
                    )

    def _losses(
        self,
        jobs: Sequence[PhotoJob],
        index: int,
        canvases: Sequence[Tensor],
        entries: Sequence[PoolEntry],
    ) -> dict[str, Tensor]:
        """Term -> loss per photo [B] under one surrogate, and their weighted "total"."""
        surrogate, request = self.surrogates[index].surrogate, self._requests[index]
        views = self._render(canvases, [e.view for e in entries], surrogate)
        draw = join_draws([e.draw for e in entries]) if request.needs_denoiser else None
        cloak = observe(surrogate, views, draw, request)
        references = {
            name: join([e.references[name] for e in entries]) for name in sorted(request.references)
        }
        keys, step = [job.key for job in jobs], max(job.step for job in jobs)
        found: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            found[name] = objective.loss(surrogate, cloak, references, keys, step)
        weights = [o.weight for o in self.objectives.values()]
        total = torch.stack([w * v for w, v in zip(weights, found.values(), strict=True)]).sum(
            dim=0
        )
        return {**found, "total": total}

    def _render(
        self, canvases: Sequence[Tensor], views: Sequence[View], surrogate: Surrogate
    ) -> Tensor:
        return torch.cat(
            [
                self.framing.render(canvas, view, surrogate.view_size)
                for canvas, view in zip(canvases, views, strict=True)
            ]
        )

    def _transformed(self, job: PhotoJob, canvas: Tensor) -> Tensor:
        if not self.transforms:
            return canvas
        generator = generator_for(self.seed, job.key, job.step, "transform")
        if torch.rand((), generator=generator).item() >= self.config.transform_share:
            return canvas
        chosen = int(torch.randint(len(self.transforms), (), generator=generator))
        return self.transforms[chosen].apply(canvas, generator)

    def _drawn_index(self, job: PhotoJob) -> int:
        generator = generator_for(self.seed, job.key, job.step, f"draw{job.attempt}")
        return int(torch.randint(self.config.num_draws, (), generator=generator))

    @torch.no_grad()
    def _entry(self, job: PhotoJob, index: int, number: int) -> PoolEntry:
        """The pool's entry of this number, made on first use with its references."""
        pool = job.pools[index].entries
        if number in pool:
            return pool[number]
        surrogate, request = self.surrogates[index].surrogate, self._requests[index]
        generator = generator_for(self.seed, job.key, number, f"pool{index}")
        if number >= VERIFICATION:
            view = self.framing.main_view(job.photo_size, surrogate.view_size, job.faces)
        else:
            view = self.framing.draw_view(job.photo_size, surrogate.view_size, job.faces, generator)
        clean = self._render([job.canvas], [view], surrogate)
        clip = clean[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
        draw = surrogate.draw(
            surrogate.encode_clip(clip),
            [generator],
            [self.config.prompt],
            (self.config.timestep_low, self.config.timestep_high),
        )
        entry = PoolEntry(view=view, draw=draw)
        if "clean" in request.references:
            entry.references["clean"] = split(observe(surrogate, clean, draw, request), 0)
        if "anchor" in request.references:
            entry.references["anchor"] = self._anchor(index, draw, request)
        pool[number] = entry
        return entry

    def _anchor(self, index: int, draw: Draw, request: TapRequest) -> Observation:
        """The anchor image at a draw; its condition is computed once per surrogate."""
        surrogate = self.surrogates[index].surrogate
        known = self._anchors[index]
        if known is None:
            views = anchor_image(self.config.anchor, *surrogate.view_size).to(surrogate.device)
            known = split(
                Observation(views=views, condition=surrogate.condition(views, request.encoder)), 0
            )
            self._anchors[index] = known
        if not request.needs_denoiser:
            return known
        assert known.condition is not None
        denoised = surrogate.denoise(known.condition, draw, request.denoiser, request.prediction)
        whole = Observation(views=known.views, condition=known.condition, denoised=denoised)
        return split(whole, 0)

    @torch.no_grad()
    def judge(self, job: PhotoJob, canvas: Tensor) -> float:
        """Weighted loss of any canvas of this photo at the fixed verification draws.

        Args:
            job: the photo (its clean canvas defines clip and references).
            canvas: [1, 3, h, w] in [0, 1]: clean, cloaked, or cloaked and purified.
        """
        values = []
        for index, weighted in enumerate(self.surrogates):
            for number in range(self.config.num_verification_draws):
                entry = self._entry(job, index, VERIFICATION + number)
                losses = self._losses([job], index, [canvas.to(job.canvas)], [entry])
                values.append(weighted.weight * losses["total"][0].item())
        return sum(values) / self.config.num_verification_draws
