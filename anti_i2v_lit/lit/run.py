"""One cloak run: settings and photos in, exit code out. The command line calls only this."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from anti_i2v_lit.archive.files import clean_temporaries
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.lock import Claims, FolderInUse
from anti_i2v_lit.archive.paths import staging_folder, sweep
from anti_i2v_lit.archive.plan import record_total
from anti_i2v_lit.data.writing import remove_partials
from anti_i2v_lit.exit_codes import EXIT_DONE, EXIT_INTERRUPTED, EXIT_PROBLEMS
from anti_i2v_lit.lit.claiming import names_of_units, restricted, units_of
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.cluster import cluster_options, workplace
from anti_i2v_lit.lit.datamodule import PhotoDataModule
from anti_i2v_lit.lit.finished import finished_and_changed
from anti_i2v_lit.lit.launching import say_what_was_lost
from anti_i2v_lit.lit.placement import placement_of
from anti_i2v_lit.lit.plugins import objects
from anti_i2v_lit.lit.progress import CloakProgress
from anti_i2v_lit.lit.quiet import quiet_lightning
from anti_i2v_lit.lit.recording import RunRecorder
from anti_i2v_lit.lit.stopping import StopOnSignal, interruptible
from anti_i2v_lit.lit.strategy import PhotoParallelStrategy
from anti_i2v_lit.lit.writer import CloakWriter
from anti_i2v_lit.rank_loss import PeerLost
from anti_i2v_lit.report.html import write_report
from anti_i2v_lit.settings import Settings


def make_trainer(settings: Settings, out: Path, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """A Trainer with our defaults under the user's `trainer.*` values.

    `trainer.logger` and `trainer.callbacks` may be written as {class_path, init_args}.

    Raises:
        ValueError: arguments that Lightning does not know or refuses.
    """
    given: dict[str, Any] = dict(settings.trainer)
    given.update(cluster_options(given))
    many = str(given.get("devices", 1)) != "1" or str(given.get("num_nodes", 1)) != "1"
    try:
        own = objects(given.pop("callbacks", None) or [], "trainer.callbacks")
        if isinstance(given.get("logger"), dict | list):
            given["logger"] = objects(given["logger"], "trainer.logger")
        defaults: dict[str, Any] = {
            "accelerator": "auto",
            "devices": 1,
            "precision": "32-true",
            "max_epochs": 1,
            "logger": False,  # `RunRecorder` keeps the records
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 5,
        }
        if many:
            defaults["strategy"] = PhotoParallelStrategy()
        return pl.Trainer(**{**defaults, **given}, callbacks=[*callbacks, *own])
    except (MisconfigurationException, TypeError, RuntimeError) as error:
        raise ValueError(f"trainer: {error}") from error


def _observers(settings: Settings, out: Path) -> tuple[CloakProgress, list[RunRecorder]]:
    """What shows and records this rank's work; `trainer.logger=false` asks for no records."""
    progress = CloakProgress(settings.attack.steps)
    if settings.trainer.get("logger", True) is False:
        return progress, []
    return progress, [RunRecorder(out, progress.pace)]


def cloak(
    settings: Settings,
    *,
    photos: Sequence[str],
    out: Path | str,
    out_format: str = "shards",
    part_of: Sequence[str] = (),
) -> int:
    """Cloak photos; running it again continues where it was.

    Several runs may work on different shards of one folder at once; what another run holds is
    left to it. On several devices Lightning runs the program once per device; rank 0 alone holds
    claims, cleans up and writes the report, and the others answer 0.

    Args:
        settings: settings of the run.
        photos: files, folders, globs and shards.
        out: folder of the cloaks.
        out_format: "shards" writes the cloaks of shards back as shards, "folder" as files.
        part_of: all shards of the campaign, where the photos are one job's part of them; the
            folder is complete when all of them are.

    Returns:
        0 all cloaked, 2 some photos failed or were refused, 3 interrupted and resumable.

    Raises:
        ValueError: wrong settings, nothing found, or `out` was made with other settings.
    """
    folder = Path(out)
    try:
        with interruptible():
            data = PhotoDataModule(settings, photos=photos, out=folder)
            progress, recorders = _observers(settings, folder)
            heard = (progress.heard, *(recorder.heard for recorder in recorders))
            writer = CloakWriter(settings, out=folder, listeners=heard, out_format=out_format)
            claims: list[Claims] = []
            stopping = StopOnSignal(lost=lambda: any(held.lost for held in claims))
            callbacks = [*recorders, writer, progress, stopping]
            with quiet_lightning(".*LeafSpec.*"):
                trainer = make_trainer(settings, folder, callbacks)
                placement_of(trainer, settings)  # refuses before anything is loaded or launched
                if trainer.is_global_zero:
                    claims.append(Claims(folder, workplace(trainer)))
                    return _lead(trainer, settings, data, claims[0], names_of_units(part_of))
                _fit(trainer, settings, data)
                return EXIT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _lead(
    trainer: pl.Trainer,
    settings: Settings,
    data: PhotoDataModule,
    claims: Claims,
    expected: Sequence[str],
) -> int:
    """The part of rank 0: claims around everything, and the report."""
    folder = data.out
    with claims:
        with claims.starting():
            Ledger(folder).open(settings.identity())
            if claims.alone():
                sweep(staging_folder(folder))
                clean_temporaries(folder)
                remove_partials(folder)
            record_total(folder, units_of(data.requested), expected)
            _choose(data, claims)
        _fit(trainer, settings, data)
        if claims.alone():  # the last run writes it for all
            write_report(folder)
    return exit_code(folder, data)


def _choose(data: PhotoDataModule, claims: Claims) -> None:
    """Leave out what other runs hold.

    Raises:
        FolderInUse: they hold everything.
    """
    units = list(units_of(data.requested))
    others = claims.claim(units)
    if len(others) == len(units) and units:
        raise FolderInUse(
            f"{data.out} is in use by another run ({next(iter(others.values()))}). "
            "Wait until it ends, stop it, or give another --out."
        )
    for unit, owner in others.items():
        print(f"left out: {unit} is being worked on by {owner}", file=sys.stderr)
    data.scanned = restricted(data.requested, set(units) - others.keys())


def _fit(trainer: pl.Trainer, settings: Settings, data: PhotoDataModule) -> None:
    try:
        trainer.fit(CloakModule(settings, out=data.out), datamodule=data)
    except PeerLost as error:
        say_what_was_lost(trainer, error)
        raise KeyboardInterrupt from error
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error
    except SystemExit as stop:
        # What Lightning makes of an interrupt outside the training loop.
        raise KeyboardInterrupt from stop


def exit_code(folder: Path, data: PhotoDataModule) -> int:
    """The exit code that the ledger's rows for these photos amount to."""
    ledger = Ledger(folder)
    keys = {s.key for s in data.requested.sources} | {key for key, _ in data.requested.broken}
    stream = data.stream
    stopped = stream is not None and stream.stop_requested
    if stream is not None and stream.left:
        return EXIT_INTERRUPTED
    finished = ledger.finished()
    if stopped and data.trainer is not None and data.trainer.world_size > 1:
        # The groups of other ranks are not known here.
        sources = {source.key: source for source in data.requested.sources}
        finished, _ = finished_and_changed(ledger, sources)
    if keys <= finished:
        return EXIT_DONE
    return EXIT_INTERRUPTED if stopped or not keys <= set(ledger.rows()) else EXIT_PROBLEMS
