"""Run one Lightning stage so that the same command takes it up again after an interruption."""

from __future__ import annotations

import dataclasses
import pathlib

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from anti_i2v_lit.surrogates.embedded.schedule import Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How a stage runs, apart from what it learns."""

    folder: pathlib.Path  # folder of the stage's checkpoint
    save_every: int = 200  # steps between checkpoints
    accelerator: str = "auto"  # Lightning accelerator: auto, cpu, gpu
    precision: str = "bf16-mixed"  # Lightning precision
    clip: float = 1.0  # largest norm of the gradient

    def __post_init__(self) -> None:
        """Refuse intervals and norms that Lightning would refuse later."""
        if self.save_every < 1 or self.clip <= 0:
            raise ValueError(
                f"save_every={self.save_every}, clip={self.clip} arrived; expected 1 or more steps "
                "and a positive norm; raise them."
            )


class StepCounter(Dataset[int]):
    """As many items as steps; the modules make their batch from the step number alone."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        """Number of steps."""
        return self._steps

    def __getitem__(self, index: int) -> int:
        """The index itself."""
        return index


def checkpoint_path(folder: pathlib.Path) -> pathlib.Path:
    """Where a stage keeps its only checkpoint."""
    return folder / "last.ckpt"


def fit(
    module: lightning.LightningModule,
    *,
    schedule: Schedule,
    options: FitOptions,
    stop_after: int | None = None,
) -> None:
    """Train until the schedule ends, from the checkpoint in ``options.folder`` if there is one.

    Args:
        module: The stage; it makes its own batches from ``global_step``.
        schedule: Length of the stage.
        options: Folder, device and precision.
        stop_after: Stop at this step as if interrupted (tests use it).
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    last = checkpoint_path(options.folder)
    steps = schedule.max_steps if stop_after is None else min(stop_after, schedule.max_steps)
    saver = ModelCheckpoint(
        dirpath=options.folder,
        filename=last.stem,
        every_n_train_steps=options.save_every,
        save_top_k=1,
        monitor=None,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,  # type: ignore[arg-type]  # checked by Lightning itself
        max_steps=steps,
        gradient_clip_val=options.clip,
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(StepCounter(schedule.max_steps + 1), batch_size=None)
    trainer.fit(module, loader, ckpt_path=str(last) if last.exists() else None)
    trainer.save_checkpoint(last)
