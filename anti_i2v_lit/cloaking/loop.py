"""The only place where a gradient meets a photo."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.convoy import Convoy, Free
from anti_i2v_lit.cloaking.draws import DrawPool, PoolEntry
from anti_i2v_lit.cloaking.ensemble import (
    EnsembleConfig,
    Residence,
    Schedule,
    WeightedSurrogate,
    normalised,
)
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.member import VERIFICATION, Member
from anti_i2v_lit.cloaking.optimiser import Direction, SignDescent
from anti_i2v_lit.cloaking.peers import Alone, Peers
from anti_i2v_lit.cloaking.transforms import DrawnTransform
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.spaces.base import PerturbationSpace

Report = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the ensemble makes of one picture.

    Attributes:
        total: weighted sum of the surrogates' losses, mean over the verification draws.
        by_surrogate: name -> its loss, without its weight.
    """

    total: float
    by_surrogate: Mapping[str, float]


class CloakLoop:
    """Steps photos in flight downhill on the weighted sum of objectives.

    The loop owns no state of a photo (that is in `PhotoJob`) and knows nothing of files or
    Lightning. Each photo's draws, transforms and start come from its own key, so its result does
    not depend on the photos beside it. One surrogate is an ensemble of one. Surrogates may be
    spread over ranks, each of which runs a loop with its own part of them on the same photos;
    gradients are summed in the order of the ensemble wherever they were computed, so that the
    cloaks are the same to the last bit.

    Args:
        seed: seed of all randomness.
        config: the attack.
        space: where the photos may change.
        surrogates: white-box models of this rank, with weights and terms.
        framing: canvas to views.
        transforms: expectation over transforms, possibly empty.
        ensemble: how several surrogates work together.
        weights: name -> weight of the whole ensemble in its order; None if all of it is here.
        peers: the ranks with the rest of the ensemble, in the order of `weights`.
        device: where everything happens; None for where the first surrogate is.
    """

    def __init__(
        self,
        *,
        seed: int,
        config: AttackConfig,
        space: PerturbationSpace,
        surrogates: Sequence[WeightedSurrogate],
        framing: Framing,
        transforms: Sequence[DrawnTransform],
        ensemble: EnsembleConfig | None = None,
        weights: Mapping[str, float] | None = None,
        peers: Peers | None = None,
        device: torch.device | None = None,
    ) -> None:
        if not surrogates or not all(s.objectives for s in surrogates):
            raise ValueError(
                "expected at least one objective and one surrogate, got "
                f"{sum(len(s.objectives) for s in surrogates)} and {len(surrogates)}"
            )
        self.seed, self.config, self.space = seed, config, space
        self.surrogates, self.framing = tuple(surrogates), framing
        self.transforms, self.peers = tuple(transforms), peers or Alone()
        self.ensemble = ensemble or EnsembleConfig()
        self.weights = dict(weights or {s.name: s.weight for s in surrogates})
        self.ensemble.check_weights(list(self.weights.values()))
        self._schedule = Schedule(kind=self.ensemble.schedule, weights=self.weights, seed=seed)
        # Alone there is nobody to be drowned, and the optimiser scales what it gets.
        self._norm = self.ensemble.normalise if len(self.weights) > 1 else "none"
        self.members = {s.name: self._member(s) for s in self.surrogates}
        self.device = device or self.surrogates[0].surrogate.device
        self.residence = Residence(
            {s.name: s.surrogate for s in self.surrogates}, self.device, self.ensemble.waiting
        )
        self.convoy: Convoy = Free()
        self.in_flight: tuple[PhotoJob, ...] = ()

    def _member(self, model: WeightedSurrogate) -> Member:
        return Member(
            model,
            purpose=f" {model.name}" if len(self.weights) > 1 else "",
            seed=self.seed,
            config=self.config,
            framing=self.framing,
        )

    def join(self, convoy: Convoy) -> None:
        """Run every pass from now on in step with other ranks."""
        self.convoy = convoy
        for member in self.members.values():
            member.convoy = convoy

    @property
    def view_size(self) -> tuple[int, int]:
        """(H, W) of the largest view of this rank's surrogates, in pixels."""
        sizes = [s.surrogate.view_size for s in self.surrogates]
        return max(sizes, key=lambda size: size[0] * size[1])

    def begin(self, job: PhotoJob) -> None:
        """Give a job its starting parameters and empty pools for its current attempt."""
        generator = generator_for(self.seed, job.key, job.attempt, "start")
        job.set_parameters(
            self.space.start(job.canvas, job.budget_8bit, [generator], self.config.random_start)
        )
        job.step = 0
        self.attach_pools(job)

    def prepare_prompts(self, jobs: Sequence[PhotoJob]) -> None:
        """Embed the texts of photos that are about to begin, all of them together."""
        for member in self.members.values():
            member.prepare_prompts(jobs)

    def attach_pools(self, job: PhotoJob) -> None:
        """Give a (resumed) job empty pools; their content is a function of its key."""
        job.pools = {name: DrawPool() for name in self.members}

    def cloaked_canvas(self, job: PhotoJob) -> Tensor:
        """The cloaked canvas [1, 3, h, w] of a job, differentiable in its parameters."""
        return self.space.decode(job.canvas, dict(job.parameters), job.budget_8bit)

    def step(self, jobs: Sequence[PhotoJob], optimiser: SignDescent) -> dict[str, dict[str, float]]:
        """Take one sign step on every job.

        Args:
            jobs: photos in flight, each with parameters known to the optimiser.
            optimiser: takes the step; projection is done here.

        Returns:
            Photo key -> term -> loss before the step: "surrogate/objective" of every surrogate
            that saw the photo, "total" with all weights; in an ensemble also
            "surrogate/total", without the surrogate's own weight.

        Raises:
            NonFiniteLoss: a loss or gradient became NaN or infinite.
        """
        started = time.perf_counter()
        self.in_flight = tuple(jobs)
        sizes: dict[nn.Parameter, Tensor] = {}
        for job in jobs:
            found = self.space.step_sizes(
                job.canvas, job.step, self.config.step_8bit, job.budget_8bit
            )
            sizes.update({job.parameters[name]: size for name, size in found.items()})
        report = self._set_gradients(jobs, list(sizes))
        optimiser.set_step_sizes(sizes, self._directions(jobs))
        optimiser.step()
        spent = (time.perf_counter() - started) / len(jobs)
        for job in jobs:
            job.assign(self.space.project(job.canvas, dict(job.parameters), job.budget_8bit))
            job.step += 1
            job.seconds += spent
        return report

    def _directions(self, jobs: Sequence[PhotoJob]) -> dict[nn.Parameter, Direction]:
        return {
            parameter: partial(self.space.direction, name, job.canvas)
            for job in jobs
            for name, parameter in job.parameters.items()
        }

    def _set_gradients(self, jobs: Sequence[PhotoJob], moving: list[nn.Parameter]) -> Report:
        """Fill `.grad` of the moving parameters with the sum over the whole ensemble."""
        mine: dict[str, Tensor] = {}
        said = self.peers.together(lambda: self._voices(jobs, moving, mine))
        rows = torch.cat(self.peers.gather(torch.stack([mine[name] for name in self.members])))
        total = torch.zeros_like(rows[0])
        for row in rows:
            total = total + row
        sizes = [parameter.numel() for parameter in moving]
        for parameter, gradient in zip(moving, total.split(sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        losses = {name: found for part in said for name, found in part.items()}
        return {job.key: self._terms(job, losses) for job in jobs}

    def _voices(
        self, jobs: Sequence[PhotoJob], moving: list[nn.Parameter], mine: dict[str, Tensor]
    ) -> dict[str, Report]:
        """What this rank's surrogates say, one after the other: activations of one exist at a time.

        Args:
            jobs: all photos of the step.
            moving: the parameters that take this step.
            mine: filled with name -> its part of the gradient, flat, zero where it rests.

        Returns:
            Name -> photo key -> term -> loss.
        """
        said: dict[str, Report] = {}
        for name in self.residence.ordered(list(self.members)):
            duties = {j.key: self._schedule.on_duty(j.key, j.attempt, j.step) for j in jobs}
            factors = {key: duty[name] for key, duty in duties.items() if name in duty}
            owners = {id(p): j for j in jobs for p in j.parameters.values() if j.key in factors}
            found: dict[int, Tensor] = {}
            said[name] = {}
            if factors:
                self.residence.fetch(name)
                found, said[name] = self._voice(name, factors, owners, moving)
            parts = [found.get(id(p), torch.zeros_like(p)).flatten() for p in moving]
            mine[name] = torch.cat(parts).detach()
        return said

    def _voice(
        self,
        name: str,
        factors: Mapping[str, float],
        owners: Mapping[int, PhotoJob],
        moving: Sequence[nn.Parameter],
    ) -> tuple[dict[int, Tensor], Report]:
        """One surrogate's weighted gradient by parameter, and its losses by photo."""
        member, jobs = self.members[name], list({j.key: j for j in owners.values()}.values())
        canvases = [self._transformed(job, self.cloaked_canvas(job)) for job in jobs]
        entries = [member.drawn(job) for job in jobs]
        wanted = [p for p in moving if id(p) in owners]

        def forward() -> dict[str, Tensor]:
            return self._losses(name, jobs, canvases, entries)

        def backward(losses: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
            weights = torch.tensor([factors[j.key] for j in jobs]).to(losses["total"])
            total = losses["total"] * weights if self._norm == "none" else losses["total"]
            return losses, torch.autograd.grad(total.sum(), wanted)

        losses, gradients = self.convoy.run(f"voice {name}", forward, backward)
        found: dict[int, Tensor] = {}
        for parameter, gradient in zip(wanted, gradients, strict=True):
            job = owners[id(parameter)]
            self._check_gradient(name, job, parameter, gradient)
            if self._norm != "none":
                gradient = factors[job.key] * normalised(gradient, self._norm)
            found[id(parameter)] = gradient
        return found, {
            job.key: {term: values[i].item() for term, values in losses.items()}
            for i, job in enumerate(jobs)
        }

    def _losses(
        self,
        name: str,
        jobs: Sequence[PhotoJob],
        canvases: Sequence[Tensor],
        entries: Sequence[PoolEntry],
    ) -> dict[str, Tensor]:
        """A surrogate's losses; one that is no number names the surrogate as well."""
        try:
            return self.members[name].losses(jobs, canvases, entries)
        except NonFiniteLoss as failure:
            if len(self.weights) == 1:
                raise
            raise NonFiniteLoss(f"surrogate {name}: {failure}", failure.keys) from failure

    def _check_gradient(
        self, name: str, job: PhotoJob, parameter: nn.Parameter, gradient: Tensor
    ) -> None:
        if not torch.isfinite(gradient).all():
            part = next(n for n, p in job.parameters.items() if p is parameter)
            under = f" under surrogate {name}" if len(self.weights) > 1 else ""
            raise NonFiniteLoss(
                f"the gradient of {part!r}{under} became non-finite at step {job.step} for "
                f"{job.key}; run the surrogate in float32",
                (job.key,),
            )

    def _terms(self, job: PhotoJob, losses: Mapping[str, Report]) -> dict[str, float]:
        """One photo's line of the report."""
        terms = {"total": 0.0}
        for name, weight in self.weights.items():
            for term, value in losses[name].get(job.key, {}).items():
                if term != "total":
                    terms[f"{name}/{term}"] = value
                    continue
                terms["total"] += weight * value
                if len(self.weights) > 1:
                    terms[f"{name}/total"] = value
        return terms

    def _transformed(self, job: PhotoJob, canvas: Tensor) -> Tensor:
        if not self.transforms:
            return canvas
        generator = generator_for(self.seed, job.key, job.step, "transform")
        if torch.rand((), generator=generator).item() >= self.config.transform_share:
            return canvas
        chosen = int(torch.randint(len(self.transforms), (), generator=generator))
        return self.transforms[chosen].apply(canvas, generator)

    def judge(self, job: PhotoJob, canvas: Tensor) -> float:
        """Weighted loss of any canvas of this photo at the fixed verification draws.

        Args:
            job: the photo (its clean canvas defines clip and references).
            canvas: [1, 3, h, w] in [0, 1]: clean, cloaked, or cloaked and purified.
        """
        return self.judge_all(job, [canvas])[0].total

    def judge_all(self, job: PhotoJob, canvases: Sequence[Tensor]) -> list[Judgement]:
        """What the whole ensemble makes of some pictures of a photo.

        All peers call it; the pictures are the leader's (none if it has none to show).

        Args:
            job: the photo.
            canvases: pictures [1, 3, h, w] in [0, 1]; on a peer that does not lead, ignored.

        Raises:
            NonFiniteLoss: a loss is no number; on all peers.
        """
        pictures = self.peers.from_leader(list(canvases))
        said = self.peers.together(lambda: self._opinions(job, pictures))
        losses = {name: found for part in said for name, found in part.items()}
        return [
            self._judgement({name: losses[name][i] for name in self.weights})
            for i in range(len(pictures))
        ]

    @torch.no_grad()
    def _opinions(self, job: PhotoJob, pictures: Sequence[Tensor]) -> dict[str, list[list[float]]]:
        """Name -> picture -> loss at each verification draw, for this rank's surrogates."""
        said: dict[str, list[list[float]]] = {}
        numbers = range(VERIFICATION, VERIFICATION + self.config.num_verification_draws)
        for name in self.residence.ordered(list(self.members)) if pictures else ():
            self.residence.fetch(name)
            entries = [self.members[name].entry(job, number) for number in numbers]
            said[name] = [
                [self._look(name, job, picture, entry) for entry in entries] for picture in pictures
            ]
        return said

    def _look(self, name: str, job: PhotoJob, picture: Tensor, entry: PoolEntry) -> float:
        def forward() -> float:
            return self._losses(name, [job], [picture.to(job.canvas)], [entry])["total"].item()

        return self.convoy.run(f"look {name}", forward, lambda loss: loss)

    def _judgement(self, losses: Mapping[str, Sequence[float]]) -> Judgement:
        weighted = [self.weights[name] * v for name, values in losses.items() for v in values]
        return Judgement(
            total=sum(weighted) / self.config.num_verification_draws,
            by_surrogate={name: sum(v) / len(v) for name, v in losses.items()},
        )
