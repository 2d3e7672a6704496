"""The LightningModule whose only parameters are the perturbations of the photos in flight."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from anti_i2v_lit.archive.in_flight import InFlightStore, Progress
from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.cloaking.build import build_loop, build_surrogates, weights_of
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.cloaking.peers import Peers
from anti_i2v_lit.cloaking.stand_in import CAPTION
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.lit.cluster import whereabouts
from anti_i2v_lit.lit.datamodule import GroupStream, LoadedPhoto, PhotoDataModule, WorkGroup
from anti_i2v_lit.lit.placement import Placement, meet, placement_of
from anti_i2v_lit.lit.sharded import Convoys, is_sharded, loading
from anti_i2v_lit.lit.strategy import PhotoParallelStrategy
from anti_i2v_lit.settings import Settings


@dataclass(frozen=True, kw_only=True)
class PhotoStart:
    """Where a photo begins, in a form that can be sent to other ranks.

    Attributes:
        job: not begun, its canvas on the CPU.
        facts: step and time of the saved progress; empty without any.
        tensors: slot -> saved parameter or momentum.
    """

    job: PhotoJob
    facts: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


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
        self._view_size = (0, 0)  # the largest of the whole ensemble decides the canvas
        self._group: WorkGroup | None = None
        self._convoys: Convoys | None = None

    @property
    def loop(self) -> CloakLoop:
        """The attack; exists once the Trainer configured the module."""
        assert self._loop is not None, "the loop is built in configure_model"
        return self._loop

    def configure_model(self) -> None:
        """Load this rank's surrogates on its device (called again by Lightning: does nothing).

        Raises:
            ValueError: a surrogate did not load on some rank; on all ranks, with its name.
        """
        if self._loop is not None:
            return
        self._check_trainer()
        placement = placement_of(self.trainer, self.settings)
        peers, everyone = meet(placement)
        # Of the ranks that share photos one has them; all embed their captions.
        texts = peers.from_leader(self._texts() if peers.leads else [])
        views = everyone.together(lambda: self._build(placement, peers, texts))
        self._view_size = max(views, key=lambda size: size[0] * size[1])
        if is_sharded(self.settings):  # not before everybody has loaded
            self._convoys = Convoys(self.trainer, self.settings)
            self._convoys.join(self.loop)
        stream = self._stream
        if stream is not None:
            stream.peers = peers

    @property
    def _stream(self) -> GroupStream | None:
        data = getattr(self.trainer, "datamodule", None)
        return data.stream if isinstance(data, PhotoDataModule) else None

    def _build(self, placement: Placement, peers: Peers, texts: Sequence[str]) -> tuple[int, int]:
        """Build the loop with this rank's surrogates; the size of their largest view."""
        device = self.trainer.strategy.root_device
        settings = self.settings
        with loading(settings):
            surrogates = build_surrogates(
                settings.surrogates,
                device,
                settings.objectives,
                waiting=settings.ensemble.waiting,
                only=None if placement.members == 1 else [placement.member],
                loaded_on="cpu" if is_sharded(settings) else None,
                prompts=texts,
            )
        self._loop = build_loop(
            seed=settings.seed,
            attack=settings.attack,
            space=settings.space,
            surrogates=surrogates,
            framing=self.framing,
            device=device,
            ensemble=settings.ensemble,
            weights=weights_of(settings.surrogates),
            peers=peers,
        )
        return self._loop.view_size

    def _texts(self) -> list[str]:
        """The texts of this rank's photos, as far as they are known before these are read."""
        stream = self._stream
        return texts_beforehand(self.settings, () if stream is None else stream.captions())

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
        self._pass_on_stop()
        if not group.entered:
            self.enter(group)
        active = [j for j in group.jobs if j.step < self.settings.attack.steps]
        report: dict[str, dict[str, float]] = {}
        if active:
            report = self._step_or_drop(group, active)
        if report:
            totals = [terms["total"] for terms in report.values()]
            self.log("loss", sum(totals) / len(totals), batch_size=len(totals))
            self._log_surrogates(list(report.values()))
            if active[0].step % self.settings.attack.checkpoint_every == 0:
                self.save(group)
        return report

    def _pass_on_stop(self) -> None:
        """Ranks in step stop together."""
        stream, convoy = self._stream, self.loop.convoy
        if stream is not None and stream.stop_requested:
            convoy.ask_to_stop()
        if stream is not None and convoy.stopping:
            stream.stop_requested = True

    def on_train_epoch_end(self) -> None:
        """Help other ranks to finish their photos, where weights are divided."""
        self._pass_on_stop()
        self.loop.in_flight = ()
        self.loop.convoy.finish()

    def _log_surrogates(self, lines: list[dict[str, float]]) -> None:
        """Each surrogate's own loss, mean over the photos that it saw (ensembles only)."""
        for name in self.loop.weights:
            seen = [terms[f"{name}/total"] for terms in lines if f"{name}/total" in terms]
            if seen:
                self.log(f"loss/{name}", sum(seen) / len(seen), batch_size=len(seen))

    def on_train_end(self) -> None:
        """Keep the steps of a group that the Trainer stopped in the middle."""
        if self._group is not None and self._group.jobs:
            self.save(self._group)

    def teardown(self, stage: str) -> None:
        """Leave the group of ranks."""
        del stage
        if self._loop is not None:
            self._loop.peers.close()
        if self._convoys is not None:
            self._convoys.close()

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
        """Make the jobs of a group, from its saved progress if there is any.

        Only the leader of several ranks has read the photos; the others are told.
        """
        starts = self.loop.peers.from_leader(self._starts(group))
        self.loop.prepare_prompts([start.job for start in starts])
        for start in starts:
            job = start.job
            job.canvas = job.canvas.to(self.device).contiguous()
            self.loop.begin(job)
            if start.facts:
                self._restore(job, start)
            group.jobs.append(job)
            self._register(job)
            if start.facts:
                self._restore_momentum(job, start)
        group.entered = True

    def _starts(self, group: WorkGroup) -> list[PhotoStart]:
        """Where each photo that was read begins."""
        saved = self.store.load(group.keys) if group.loaded else None
        facts = saved.facts.get("jobs", {}) if saved is not None else {}
        found = []
        for key, loaded in group.loaded.items():
            known = facts.get(key, {})
            # An original that was replaced meanwhile starts again.
            same = known.get("source_sha256") == loaded.decoded.source_sha256
            job = self._new_job(key, loaded)
            if saved is not None and same:
                job.budget_8bit, job.attempt = float(known["budget_8bit"]), int(known["attempt"])
                mine = {n: t for n, t in saved.tensors.items() if n.startswith(_slot(key, ""))}
                found.append(PhotoStart(job=job, facts=known, tensors=mine))
            else:
                found.append(PhotoStart(job=job))
        return found

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
        """Write the progress of a group, in float, atomically; the leader does it for its peers."""
        if not self.loop.peers.leads:
            return
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
        facts = {"step": steps, "jobs": jobs, "where": whereabouts()}
        self.store.save(group.keys, Progress(tensors=tensors, facts=facts))

    def _new_job(self, key: str, loaded: LoadedPhoto) -> PhotoJob:
        canvas = self.framing.to_canvas(loaded.decoded.srgb(), self._view_size)[None]
        return PhotoJob(
            key=key,
            photo_size=loaded.decoded.size,
            canvas=canvas,
            faces=loaded.faces,
            budget_8bit=self.settings.attack.budget_8bit,
            caption=loaded.decoded.caption,
        )

    def _restore(self, job: PhotoJob, start: PhotoStart) -> None:
        names = list(job.parameters)
        job.set_parameters({name: start.tensors[_slot(job.key, name)] for name in names})
        job.step, job.seconds = int(start.facts["step"]), float(start.facts["seconds"])

    def _restore_momentum(self, job: PhotoJob, start: PhotoStart) -> None:
        for name, parameter in job.parameters.items():
            value = start.tensors[_slot(job.key, name) + "_momentum"]
            self.sign_descent.set_momentum_of(parameter, value)

    def _register(self, job: PhotoJob) -> None:
        for name, parameter in job.parameters.items():
            self.perturbations[_slot(job.key, name)] = parameter
        self.sign_descent.add_photo(job.parameters.values())


def texts_beforehand(settings: Settings, captions: Iterable[str]) -> list[str]:
    """All texts that a run can know before it reads its photos.

    Args:
        settings: of the run.
        captions: of the photos; looked at only where a text has a place for them.
    """
    attack = settings.attack
    if not any("{caption}" in text for text in (attack.prompt, *attack.prompts)):
        return list(attack.texts_for(""))
    # First, because memory holds only so many.
    first = [CAPTION] if is_sharded(settings) else []
    return [text for caption in (*first, *captions) for text in attack.texts_for(caption)]


def _slot(key: str, name: str) -> str:
    """A name that is legal in a state dict, whatever the photo is called."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16] + "_" + name
