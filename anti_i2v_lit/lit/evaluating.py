"""One evaluation on any number of devices and processes: Lightning launches, photos are claimed."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from anti_i2v_lit.archive.lock import Claims, held_by
from anti_i2v_lit.archive.runs import sightings
from anti_i2v_lit.evaluation.concluding import conclude
from anti_i2v_lit.evaluation.export import write_rows
from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.failures import FailureLog
from anti_i2v_lit.evaluation.gathering import gather
from anti_i2v_lit.evaluation.journal import NotWritten
from anti_i2v_lit.evaluation.judge import weights_folder
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.outcome_file import write_outcome
from anti_i2v_lit.evaluation.plan import make_plan
from anti_i2v_lit.evaluation.records import RecordStore
from anti_i2v_lit.evaluation.settings import EvaluationSettings
from anti_i2v_lit.evaluation.store import ResultStore
from anti_i2v_lit.evaluation.workbench import (
    ModelUnusable,
    Stopped,
    Workbench,
    failure,
    make_further,
    make_judge,
    parts_of,
)
from anti_i2v_lit.exit_codes import EXIT_DONE
from anti_i2v_lit.lit.cluster import cluster_options, workplace
from anti_i2v_lit.lit.launching import say_what_was_lost
from anti_i2v_lit.lit.quiet import quiet_lightning
from anti_i2v_lit.lit.signal_handlers import StopHandlers
from anti_i2v_lit.lit.strategy import PhotoParallelStrategy
from anti_i2v_lit.rank_loss import PeerLost
from anti_i2v_lit.report.evaluation import write_report, write_tensorboard
from anti_i2v_lit.report.evaluation.page import REPORT
from anti_i2v_lit.report.evaluation.tensorboard import FOLDER as TENSORBOARD
from anti_i2v_lit.slurm.signals import REQUEST

ROWS = "rows"
UNIT = "{} {}"  # how a claim names a generator and a photo
Unit = tuple[str, str]


class Stop(pl.Callback):
    """SIGINT and SIGTERM end the batch and the run; what was done is kept.

    The handlers are installed after Lightning's own, which would raise in the middle of a clip.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handlers = StopHandlers(self._note)
        self._parent = os.getppid()

    def __call__(self) -> bool:
        """Whether to stop: asked to, warned by SLURM, or left alone by the process that leads."""
        # Rank 0 may outlive its shell; the ranks that it started may not outlive it.
        orphaned = os.environ.get("LOCAL_RANK", "0") != "0" and self._parent != os.getppid()
        return self.requested or REQUEST.received is not None or orphaned

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers."""
        del pl_module
        self._handlers.install(trainer)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the earlier handlers back."""
        del trainer, pl_module
        self._handlers.restore()

    def _note(self) -> None:
        self.requested = True


class Units(IterableDataset[Unit]):
    """Photos with a generator each that are not done and that nobody else works on.

    Every process looks at all of them, from a place of its own, so none waits for another.

    Args:
        bench: knows what there is to do, and what is done.
        claims: this process's claims.
        stop: whether to stop.
        share: (rank, ranks).
    """

    def __init__(
        self, bench: Workbench, claims: Claims, stop: Stop, share: tuple[int, int]
    ) -> None:
        self._bench, self._claims, self._stop = bench, claims, stop
        self._share = share

    def __iter__(self) -> Iterator[Unit]:
        """Claim and yield, generator by generator."""
        plan = self._bench.plan
        keys = list(plan.photos)
        rank, ranks = self._share
        start = rank * len(keys) // ranks
        for label in plan.generators:
            for key in [*keys[start:], *keys[:start]]:
                if self._stop():
                    return
                if self._bench.is_done(key, label) or self._claims.claim([UNIT.format(label, key)]):
                    continue
                self._bench.store.refresh()
                self._bench.records.refresh()
                yield label, key


class EvaluationModule(pl.LightningModule):
    """Holds no weights: a step is one photo with one generator.

    Args:
        bench: does the work.
        failures: what could not be done.
        held: gives back what this process has claimed.
    """

    def __init__(self, bench: Workbench, failures: FailureLog, held: ExitStack) -> None:
        super().__init__()
        self._holder = (bench, failures)  # a tuple, so that no network becomes part of this module
        self._held = held

    def predict_step(self, batch: Unit, batch_idx: int) -> None:
        """Make all rows of a photo by a generator; what fails is written down.

        Raises:
            ModelUnusable: the generator cannot be loaded.
            NotWritten: rows or clips cannot be written; a run that goes on would lose them.
        """
        del batch_idx
        (bench, failures), (label, key) = self._holder, batch
        bench.device = str(self.device)
        try:
            bench.work(key, label)
        except Stopped:
            return
        except (ModelUnusable, NotWritten):  # the next photo would end like this one
            raise
        except Exception as error:  # noqa: BLE001 (one odd photo must not stop ten thousand)
            failures.append(key, label, failure(key, label, error))
            print(f"{key}, {label}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def on_predict_end(self) -> None:
        """Wait for all ranks, so that rank 0 sums up everything.

        Claims are given back first: what is claimed after this is another run's.
        """
        self._held.close()
        self.trainer.strategy.barrier("evaluated")


def evaluate(
    settings: EvaluationSettings,
    *,
    clean: Path,
    cloaked: Mapping[str, Path],
    out: Path,
    pairs: Mapping[str, Path] | None = None,
) -> tuple[int, Outcome | None]:
    """Evaluate protections; running it again continues where it was.

    Several runs may work on one `out` at once; each photo and generator is done by one of them,
    and the last one to finish sums up all of it.

    Args:
        settings: of the evaluation.
        clean: folder of clean photos, of shards, or a manifest.
        cloaked: name -> folder of protected photos.
        out: folder of rows, clips and outcome.
        pairs: name of a protection -> CSV of its pairs, for folders without a manifest; "" for
            the only such folder.

    Returns:
        The exit code (0 all fine, 2 some pairs failed or are no cloaks, 3 not complete: it was
        interrupted, or another run still works), and the outcome; None on ranks other than 0.

    Raises:
        ValueError: wrong settings, or nothing to evaluate.
    """
    started, stop, rows = time.monotonic(), Stop(), out / ROWS
    with quiet_lightning("predict returned None.*", ".*LeafSpec.*"):
        trainer = _trainer(settings, stop)
        bench = _workbench(settings, stop, clean, cloaked, out, pairs)
        failures = FailureLog(rows)
        with ExitStack() as held:
            claims = held.enter_context(Claims(rows, workplace(trainer)))
            share = (trainer.global_rank, trainer.world_size)
            units = Units(bench, claims, stop, share)
            _predict(trainer, EvaluationModule(bench, failures, held), units)
    if not trainer.is_global_zero:
        return EXIT_DONE, None
    outcome = _summed_up(bench, failures, out, started)
    while outcome.elsewhere and not _lacking(bench, failures)[0]:
        # The other run ended while this one was writing, and may have written before it.
        outcome = _summed_up(bench, failures, out, started)
    return outcome.exit_code, outcome


def _workbench(
    settings: EvaluationSettings,
    stop: Stop,
    clean: Path,
    cloaked: Mapping[str, Path],
    out: Path,
    pairs: Mapping[str, Path] | None,
) -> Workbench:
    weights = weights_folder(Path(settings.weights) if settings.weights else None)
    judge, further = make_judge(settings, weights), make_further(settings, weights)
    plan = make_plan(
        settings,
        clean=clean,
        cloaked=cloaked,
        out=out,
        pairs=pairs,
        parts=parts_of(judge, further),
    )
    return Workbench(
        plan,
        store=ResultStore(out / ROWS),
        records=RecordStore(out / ROWS),
        judge=judge,
        further=further,
        stopping=stop,
        listener=lambda text: print(text, file=sys.stderr, flush=True),
    )


def _lacking(bench: Workbench, failures: FailureLog) -> tuple[list[Unit], list[Problem]]:
    """Units that nobody has finished, and what is known of those that cannot be."""
    bench.store.refresh()
    bench.records.refresh()
    known = failures.of(lambda key, label: not bench.is_done(key, label))
    return [unit for unit in bench.missing() if unit not in known], list(known.values())


def _held_elsewhere(rows: Path) -> set[str]:
    """Units that living runs hold."""
    living = {sighting.owner.token for sighting in sightings(rows) if sighting.living}
    return {unit for token, some in held_by(rows).items() if token in living for unit in some}


def _summed_up(bench: Workbench, failures: FailureLog, out: Path, started: float) -> Outcome:
    """What all processes found, written to the folder."""
    held = _held_elsewhere(out / ROWS)  # before the rows are read: what is given back is done
    lacking, known = _lacking(bench, failures)
    others = [unit for unit in lacking if UNIT.format(*unit) in held]
    found = gather(bench.plan, bench.store, bench.records)
    outcome = conclude(
        bench.plan,
        found,
        further=bench.further,
        failures=known,
        clips=bench.store,
        unfinished=bool(lacking),
        elsewhere=len(others) if len(others) == len(lacking) else 0,
    )
    files = (*write_rows(found.results, outcome, out), REPORT, TENSORBOARD)
    outcome = dataclasses.replace(outcome, files=files, seconds=time.monotonic() - started)
    write_outcome(outcome, out)
    write_report(outcome, out, bench.plan.settings.report)
    write_tensorboard(outcome, out, bench.plan.settings.report)
    return outcome


def _predict(trainer: pl.Trainer, module: EvaluationModule, units: Units) -> None:
    loader = DataLoader(units, batch_size=None, num_workers=0)
    try:
        trainer.predict(module, dataloaders=loader, return_predictions=False)
    except PeerLost as error:
        say_what_was_lost(trainer, error)
        raise KeyboardInterrupt from error
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error
    except SystemExit as stopped:
        # What Lightning makes of an interrupt outside its loops.
        raise KeyboardInterrupt from stopped


def _trainer(settings: EvaluationSettings, stop: Stop) -> pl.Trainer:
    """A Trainer with our defaults under the user's `trainer.*` values.

    Raises:
        ValueError: arguments that Lightning does not know or refuses.
    """
    given: dict[str, Any] = dict(settings.trainer)
    given.update(cluster_options(given))
    many = str(given.get("devices", 1)) != "1" or str(given.get("num_nodes", 1)) != "1"
    defaults: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "inference_mode": False,  # metrics remember tensors by their version
    }
    if many:
        defaults["strategy"] = PhotoParallelStrategy()
    try:
        return pl.Trainer(**{**defaults, **given}, callbacks=[stop])
    except (MisconfigurationException, TypeError, RuntimeError) as error:
        raise ValueError(f"trainer: {error}") from error
