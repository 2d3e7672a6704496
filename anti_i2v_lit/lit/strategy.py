"""Photos in parallel: launcher, process group and devices of DDP, and nothing averaged.

Stock DDP broadcasts rank 0's parameters and averages gradients, which would silently mix the
perturbations of different photos.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn


class PhotoParallelStrategy(DDPStrategy):
    """DDP's launch without the DDP wrapper: every rank keeps its own perturbations."""

    strategy_name = "photo_parallel"

    def configure_ddp(self) -> None:
        """Wrap nothing."""

    def setup(self, trainer: pl.Trainer) -> None:
        """Place the module and make its optimiser; broadcast nothing."""
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()


def register() -> None:
    """Make `Trainer(strategy="photo_parallel")` known; calling it twice is harmless."""
    if "photo_parallel" not in StrategyRegistry.available_strategies():
        description = "DDP launch, rank-local perturbations, nothing averaged"
        init: dict[str, Any] = {}
        StrategyRegistry.register(
            "photo_parallel", PhotoParallelStrategy, description=description, **init
        )
