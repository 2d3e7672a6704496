"""Publishes finished photos and writes their rows, one at a time, as soon as they are done."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.archive.outputs import in_shard, shard_stage
from anti_i2v_lit.archive.paths import staging_folder
from anti_i2v_lit.checks import NonFiniteLoss, PhotoFailure
from anti_i2v_lit.cloaking.finishing import Finisher, Verdict
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import Judgement
from anti_i2v_lit.cloaking.transforms import transform_models
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.writing import member_name, output_names
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import LoadedPhoto, PhotoDataModule, WorkGroup
from anti_i2v_lit.lit.shards import ShardWriter, check_out_format, stage_caption
from anti_i2v_lit.lit.targets import Targets, check_shards
from anti_i2v_lit.settings import Settings

Listener = Callable[[Row], None]


class CloakWriter(pl.Callback):
    """Turns optimised photos into files and ledger rows.

    Args:
        settings: settings of the run.
        out: folder of the cloaks.
        listeners: called with every row as it is written.
        out_format: "shards" writes the cloaks of shards back as shards, "folder" as files.

    Raises:
        ValueError: unknown `out_format`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        out: Path | str,
        listeners: tuple[Listener, ...] = (),
        out_format: str = "shards",
    ) -> None:
        check_out_format(out_format)
        self.settings, self.out, self.listeners = settings, Path(out), listeners
        self.out_format = out_format
        self.ledger = Ledger(self.out)
        self._finishers: dict[Path, Finisher] = {}
        self._shards: ShardWriter | None = None
        self._targets = Targets(self.out, (), {})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the ledger; record what could not even be opened as a file.

        Raises:
            ValueError: the folder was made with other settings, or holds tars of somebody else.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PhotoDataModule), "pass datamodule=PhotoDataModule(...) to fit"
        listings = data.scanned.shards if self.out_format == "shards" else ()
        self._shards = ShardWriter(self.out, listings, self.ledger)
        if data.stream is not None:
            self._shards.expect(data.stream.groups)
        assert isinstance(pl_module, CloakModule)
        check_shards(self.out, listings, self.ledger)
        self._look_at_targets(data, pl_module)
        if trainer.is_global_zero:
            self.ledger.open(self.settings.identity())
            for key, reason in data.scanned.broken:
                self._append(Row(key=key, status="failed", reason=reason))
            self.ledger.sync()
        trainer.strategy.barrier("ledger opened")

    def _look_at_targets(self, data: PhotoDataModule, module: CloakModule) -> None:
        """Find out which names are taken by files of somebody else; their photos fail."""
        if data.stream is None:
            return
        todo = data.stream.todo()
        names = {s.key: self._name(s) for s in todo if not self._waits_for_shard(s)}
        self._targets = Targets(self.out, data.requested.sources, names)
        steps = self.settings.attack.steps
        data.stream.blocked = self._targets.blocked(self.ledger, module.store, steps)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the other ranks, so that report and exit code know all rows."""
        trainer.strategy.barrier("all photos done")
        if trainer.is_global_zero and self._shards is not None:
            self._shards.write_whole_shards()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record photos that could not be read when their group comes up."""
        group: WorkGroup = batch
        for key, (path, reason) in group.failures.items():
            self._append(Row(key=key, status="failed", reason=reason, source=path))
        group.failures.clear()
        self.ledger.sync()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """When every photo of a group has its steps: publish, retry or refuse each."""
        assert isinstance(pl_module, CloakModule)
        group: WorkGroup = batch
        if group.done:  # the loader is one ahead, and shows a group once more
            return
        self._record_broken(group)
        if any(job.step < self.settings.attack.steps for job in group.jobs):
            return
        if group.jobs:
            # From here on a kill costs no step: the finished perturbations are on disk.
            pl_module.save(group)
        again = self._settle_all(pl_module, group)
        for job in [j for j in group.jobs if j not in again]:
            pl_module.release(job)
        for job in again:
            pl_module.restart(job, job.budget_8bit * self.settings.gate.budget_factor)
        group.jobs = again
        self.ledger.sync()  # once per group, and before its progress is forgotten
        if again:
            pl_module.save(group)
        else:
            group.done = True
            if pl_module.loop.peers.leads:
                pl_module.store.discard(group.keys)
                self._pass(group)

    def _pass(self, group: WorkGroup) -> None:
        if self._shards is not None:
            self._shards.passed(group.keys)

    def _settle_all(self, module: CloakModule, group: WorkGroup) -> list[PhotoJob]:
        """Jobs that get another attempt; the leader decides, its peers help it to judge."""
        peers, due = module.loop.peers, []
        for job in group.jobs:
            if not peers.leads:
                _assist(module, job)
            elif not self._settle(module, job, group.loaded[job.key]):
                due.append(job.key)
        due = peers.from_leader(due)
        return [job for job in group.jobs if job.key in due]

    def finisher(self, module: CloakModule, out: Path) -> Finisher:
        """The one that writes and judges files below a folder, made on first use."""
        if out not in self._finishers:
            self._finishers[out] = Finisher(
                loop=module.loop,
                framing=module.framing,
                gate=self.settings.gate,
                reading=self.settings.reading,
                output=self.settings.output,
                out=out,
                staging=staging_folder(self.out),
                # The stage of shards lies in the folder's own state.
                check=self._targets.check if out == self.out else lambda key, target: None,
            )
        return self._finishers[out]

    @functools.cached_property
    def _digest(self) -> str:
        """Of the settings, which stay as they were when the ledger was opened."""
        return self.settings.digest()

    @functools.cached_property
    def _models(self) -> tuple[str, ...]:
        """All that the cloaks are computed through: surrogates, then models of transforms."""
        own = [_label(node) for node in self.settings.surrogates]
        drawn = transform_models(self.settings.attack.transforms)
        return (*own, *(model for model in drawn if model not in own))

    def _waits_for_shard(self, source: SourceFile) -> bool:
        return source.sample is not None and self.out_format == "shards"

    def _name(self, source: SourceFile) -> str:
        """Name of the cloak, relative to the folder of cloaks or to the stage of shards."""
        if self._waits_for_shard(source):
            return member_name(source.key, self.settings.output)
        return output_names([source.key], self.settings.output)[source.key]

    def _record_broken(self, group: WorkGroup) -> None:
        for key, reason in group.broken.items():
            if key not in group.loaded:  # the rank that read the photo writes its row
                continue
            loaded = group.loaded[key]
            self._append(
                Row(
                    key=key,
                    status="failed",
                    reason=reason,
                    source=_text(loaded.source.path),
                    source_sha256=loaded.decoded.source_sha256,
                    config_sha256=self._digest,
                    seed=self.settings.seed,
                )
            )
        group.broken.clear()
        self.ledger.sync()

    def _settle(self, module: CloakModule, job: PhotoJob, loaded: LoadedPhoto) -> bool:
        """Write a row and return True, or return False if another attempt is due."""
        waits, started = self._waits_for_shard(loaded.source), time.perf_counter()
        finisher = self.finisher(module, shard_stage(self.out) if waits else self.out)
        try:
            verdict = finisher.finish(job, loaded.decoded, self._name(loaded.source))
            if waits and not verdict.complaints:
                stage_caption(self.out, job.key, loaded.decoded.caption)
        except PhotoFailure as failure:
            self._append(self._row(job, loaded, status="failed", reason=str(failure)))
            return True
        finally:
            job.seconds += time.perf_counter() - started
        last_attempt = job.attempt + 1 >= self.settings.gate.max_attempts
        if verdict.complaints and not last_attempt:
            return False
        reason = "too visible at every budget tried: " + "; ".join(verdict.complaints)
        row = self._row(job, loaded, status="refused", reason=reason)
        if not verdict.complaints:
            row = dataclasses.replace(
                row,
                status="cloaked",
                reason="",
                output=in_shard(verdict.output) if waits else verdict.output,
                output_sha256=verdict.sha256,
            )
        self._append(_with_figures(row, verdict))
        return True

    def _row(self, job: PhotoJob, loaded: LoadedPhoto, *, status: str, reason: str) -> Row:
        return Row(
            key=job.key,
            status=status,
            reason=reason,
            source=_text(loaded.source.path),
            source_sha256=loaded.decoded.source_sha256,
            source_mtime_ns=loaded.mtime_ns,
            surrogates=self._models,
            config_sha256=self._digest,
            seed=self.settings.seed,
            steps=job.step,
            budget_8bit=job.budget_8bit,
            seconds=round(job.seconds, 3),
        )

    def _append(self, row: Row) -> None:
        self.ledger.add(row)
        for listener in self.listeners:
            listener(row)


def _assist(module: CloakModule, job: PhotoJob) -> None:
    """Judge what the leader has written; a loss that is no number is the leader's to record."""
    with suppress(NonFiniteLoss):
        module.loop.judge_all(job, [])


def _text(path: Path) -> str:
    """A path as text; the path itself, which stays in memory, would keep the text as well."""
    return str(Path(path))


def _label(node: dict[str, Any]) -> str:
    return f"{node['name']}:{node.get('path', '')}"


def _parts(judgement: Judgement) -> tuple[float, ...]:
    """Each surrogate's own loss, in the order of the ensemble; nothing for a single one."""
    losses = judgement.by_surrogate.values()
    return tuple(round(value, 5) for value in losses) if len(losses) > 1 else ()


def _with_figures(row: Row, verdict: Verdict) -> Row:
    figures = {
        name: None if value is None else round(float(value), 5)
        for name, value in verdict.figures.items()
    }
    first, last = (_parts(judgement) for judgement in verdict.judgements)
    return dataclasses.replace(
        row,
        losses_first=first,
        losses_last=last,
        loss_first=figures["loss_first"],
        loss_last=figures["loss_last"],
        psnr=figures["psnr"],
        ssim=figures["ssim"],
        ciede2000=figures["ciede2000"],
        lpips=figures["lpips"],
        max_change_8bit=figures["max_change_8bit"],
        residual_kept=figures["residual_kept"],
        loss_kept=figures["loss_kept"],
    )
