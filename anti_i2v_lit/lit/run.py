"""One cloak run: settings and photos in, exit code out. The command line calls only this."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from anti_i2v_lit.archive.files import clean_temporaries
from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.archive.lock import FolderLock
from anti_i2v_lit.archive.paths import staging_folder, state_folder, sweep
from anti_i2v_lit.archive.plan import record_total
from anti_i2v_lit.data.writing import remove_partials
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import PhotoDataModule
from anti_i2v_lit.lit.images import TensorBoardRecorder
from anti_i2v_lit.lit.progress import CloakProgress
from anti_i2v_lit.lit.stopping import StopOnSignal
from anti_i2v_lit.lit.strategy import PhotoParallelStrategy
from anti_i2v_lit.lit.writer import CloakWriter
from anti_i2v_lit.report.html import write_report
from anti_i2v_lit.settings import Settings

EXIT_DONE, EXIT_USAGE, EXIT_PROBLEMS, EXIT_INTERRUPTED = 0, 1, 2, 3


def make_trainer(settings: Settings, out: Path, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """A Trainer with our defaults under the user's `trainer.*` values."""
    given: dict[str, Any] = dict(settings.trainer)
    many = str(given.get("devices", 1)) != "1" or int(given.get("num_nodes", 1)) != 1
    defaults: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "precision": "32-true",
        "max_epochs": 1,
        "logger": TensorBoardLogger(save_dir=state_folder(out), name="tensorboard", version=""),
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 5,
    }
    if many:
        defaults["strategy"] = PhotoParallelStrategy()
    return pl.Trainer(**{**defaults, **given}, callbacks=list(callbacks))


def cloak(settings: Settings, *, photos: Sequence[str], out: Path | str) -> int:
    """Cloak photos; running it again continues where it was.

    Args:
        settings: settings of the run.
        photos: files, folders and globs.
        out: folder of the cloaks.

    Returns:
        0 all cloaked, 2 some photos failed or were refused, 3 interrupted and resumable.

    Raises:
        ValueError: wrong settings, nothing found, or `out` was made with other settings.
    """
    folder = Path(out)
    data = PhotoDataModule(settings, photos=photos, out=folder)
    with FolderLock(folder):
        Ledger(folder).open(settings.identity())
        sweep(staging_folder(folder))
        clean_temporaries(folder)
        remove_partials(folder)
        record_total(folder, data.num_photos + len(data.scanned.broken))
        _record_broken(Ledger(folder), data)
        progress = CloakProgress(settings.attack.steps)
        writer = CloakWriter(settings, out=folder, listeners=(progress.heard,))
        with _quiet_lightning():
            callbacks = [writer, progress, TensorBoardRecorder(), StopOnSignal()]
            trainer = make_trainer(settings, folder, callbacks)
            trainer.fit(CloakModule(settings, out=folder), datamodule=data)
        write_report(folder)
    return exit_code(folder, data)


def exit_code(folder: Path, data: PhotoDataModule) -> int:
    """The exit code that the ledger's rows for these photos amount to."""
    rows = Ledger(folder).rows()
    keys = {s.key for s in data.scanned.sources} | {key for key, _ in data.scanned.broken}
    if not keys <= set(rows):
        return EXIT_INTERRUPTED
    return EXIT_DONE if all(rows[k].status == "cloaked" for k in keys) else EXIT_PROBLEMS


def _record_broken(ledger: Ledger, data: PhotoDataModule) -> None:
    """Rows for what could not even be opened as a file (symlink loops, forbidden folders)."""
    finished = ledger.finished()
    for key, reason in data.scanned.broken:
        if key not in finished:
            ledger.append(Row(key=key, status="failed", reason=reason))


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hide what does not concern this run: no epoch is shuffled or resumed here, and tips."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*doesn't have.*__len__.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            yield
        finally:
            log.setLevel(level)
