"""The LightningModule whose only parameters are the perturbations of the photos in flight."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from anti_i2v_lit.archive.in_flight import InFlightStore, Progress
from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.cloaking.build import build_loop, build_surrogates
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.lit.datamodule import LoadedPhoto, WorkGroup
from anti_i2v_lit.lit.strategy import PhotoParallelStrategy
from anti_i2v_lit.settings import Settings


class CloakModule(pl.LightningModule):
    """One `training_step` is one sign step on a group of photos.

    The frozen surrogates live in plain objects, so the state dict, checkpoints and broadcasts
    contain perturbations only. Progress is kept per group of photos in DIR/.anti_i2v, not in
    Lightning's checkpoints: running the same command again continues from there.

    Args:
        settings: settings of the run.
        out: folder of the cloaks.
    """

    def __init__(self, settings: Settings, *, out: Path | str) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.out = settings, Path(out)
        self.perturbations = nn.ParameterDict()
        self.framing = Framing(settings.framing)
        self.store = InFlightStore(self.out)
        self._loop: CloakLoop | None = None
        self._group: WorkGroup | None = None

    @property
    def loop(self) -> CloakLoop:
        """The attack; exists once the Trainer configured the module."""
        assert self._loop is not None, "the loop is built in configure_model"
        return self._loop

    def configure_model(self) -> None:
        """Load the surrogates on this rank's device (called again by Lightning: does nothing)."""
        if self._loop is not None:
            return
        self._check_trainer()
        device = self.trainer.strategy.root_device
        settings = self.settings
        self._loop = build_loop(
            seed=settings.seed,
            attack=settings.attack,
            space=settings.space,
            objectives=settings.objectives,
            surrogates=build_surrogates(settings.surrogates, device),
            framing=self.framing,
            device=device,
        )

    def _check_trainer(self) -> None:
        """Refuse a Trainer, made by a program, that would change results silently."""
        trainer = self.trainer
        if trainer.world_size > 1 and not isinstance(trainer.strategy, PhotoParallelStrategy):
            raise ValueError(
                f"{type(trainer.strategy).__name__} averages the perturbations of different "
                "photos; pass strategy=PhotoParallelStrategy() or devices=1 to the Trainer"
            )
        if str(trainer.precision) != "32-true":
            raise ValueError(
                f"the Trainer's precision must stay '32-true', got {trainer.precision!r}: the "
                "perturbation is float32; set surrogates.0.dtype instead"
            )

    def configure_optimizers(self) -> SignDescent:
        """Sign descent without photos; they come and go."""
        return SignDescent(self.settings.attack.momentum)

    @property
    def sign_descent(self) -> SignDescent:
        """The optimiser behind Lightning's wrapper."""
        wrapper: Any = self.optimizers()
        optimiser: SignDescent = wrapper.optimizer
        return optimiser

    def training_step(self, group: WorkGroup, batch_idx: int) -> dict[str, dict[str, float]]:
        """Take one step on the photos of a group that have steps left."""
        del batch_idx
        self._group = group
        if not group.entered:
            self.enter(group)
        active = [j for j in group.jobs if j.step < self.settings.attack.steps]
        report: dict[str, dict[str, float]] = {}
        if active:
            report = self._step_or_drop(group, active)
        if report:
            totals = [terms["total"] for terms in report.values()]
            self.log("loss", sum(totals) / len(totals), batch_size=len(totals))
            if active[0].step % self.settings.attack.checkpoint_every == 0:
                self.save(group)
        return report

    def on_train_end(self) -> None:
        """Keep the steps of a group that the Trainer stopped in the middle."""
        if self._group is not None and self._group.jobs:
            self.save(self._group)

    def _step_or_drop(
        self, group: WorkGroup, active: list[PhotoJob]
    ) -> dict[str, dict[str, float]]:
        """Step; a photo whose loss is non-finite leaves the group with its reason."""
        wrapper: Any = self.optimizers()
        try:
            return self.loop.step(active, wrapper)
        except NonFiniteLoss as failure:
            for job in [j for j in active if j.key in failure.keys]:
                self.release(job)
                group.jobs.remove(job)
                group.broken[job.key] = str(failure)
            return {}

    def enter(self, group: WorkGroup) -> None:
        """Make the jobs of a group, from its saved progress if there is any."""
        saved = self.store.load(group.keys)
        facts = saved.facts.get("jobs", {}) if saved is not None else {}
        for key, loaded in group.loaded.items():
            job = self._new_job(key, loaded)
            known = facts.get(key, {})
            # An original that was replaced meanwhile starts again.
            same = known.get("source_sha256") == loaded.decoded.source_sha256
            if saved is not None and same:
                self._restore(job, saved, known)
            else:
                self.loop.begin(job)
            group.jobs.append(job)
            self._register(job)
            if saved is not None and same:
                self._restore_momentum(job, saved)
        group.entered = True

    def restart(self, job: PhotoJob, budget_8bit: float) -> None:
        """Begin the next attempt of a photo with a smaller budget."""
        self.release(job)
        job.budget_8bit, job.attempt = budget_8bit, job.attempt + 1
        self.loop.begin(job)
        self._register(job)

    def release(self, job: PhotoJob) -> None:
        """Forget a photo's parameters."""
        self.sign_descent.drop_photo(job.parameters.values())
        for name in job.parameters:
            del self.perturbations[_slot(job.key, name)]

    def save(self, group: WorkGroup) -> None:
        """Write the progress of a group, in float, atomically."""
        tensors: dict[str, torch.Tensor] = {}
        for job in group.jobs:
            for name, parameter in job.parameters.items():
                slot = _slot(job.key, name)
                tensors[slot] = parameter.detach().cpu()
                tensors[slot + "_momentum"] = self.sign_descent.momentum_of(parameter).cpu()
        steps = min((job.step for job in group.jobs), default=0)
        jobs = {
            job.key: {
                **job.facts(),
                "source_sha256": group.loaded[job.key].decoded.source_sha256,
            }
            for job in group.jobs
        }
        self.store.save(group.keys, Progress(tensors=tensors, facts={"step": steps, "jobs": jobs}))

    def _new_job(self, key: str, loaded: LoadedPhoto) -> PhotoJob:
        view_size = self._largest_view()
        canvas = self.framing.to_canvas(loaded.decoded.srgb(), view_size)[None]
        return PhotoJob(
            key=key,
            photo_size=loaded.decoded.size,
            canvas=canvas.to(self.device).contiguous(),
            faces=loaded.faces,
            budget_8bit=self.settings.attack.budget_8bit,
            caption=loaded.decoded.caption,
        )

    def _largest_view(self) -> tuple[int, int]:
        sizes: Sequence[tuple[int, int]] = [s.surrogate.view_size for s in self.loop.surrogates]
        return max(sizes, key=lambda size: size[0] * size[1])

    def _restore(self, job: PhotoJob, saved: Progress, facts: dict[str, Any]) -> None:
        job.budget_8bit, job.attempt = float(facts["budget_8bit"]), int(facts["attempt"])
        self.loop.begin(job)
        names = list(job.parameters)
        job.set_parameters({name: saved.tensors[_slot(job.key, name)] for name in names})
        job.step, job.seconds = int(facts["step"]), float(facts["seconds"])

    def _restore_momentum(self, job: PhotoJob, saved: Progress) -> None:
        for name, parameter in job.parameters.items():
            value = saved.tensors[_slot(job.key, name) + "_momentum"]
            self.sign_descent.set_momentum_of(parameter, value)

    def _register(self, job: PhotoJob) -> None:
        for name, parameter in job.parameters.items():
            self.perturbations[_slot(job.key, name)] = parameter
        self.sign_descent.add_photo(job.parameters.values())


def _slot(key: str, name: str) -> str:
    """A name that is legal in a state dict, whatever the photo is called."""
    return hashlib.sha256(key.encode()).hexdigest()[:16] + "_" + name
