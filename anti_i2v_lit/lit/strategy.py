"""Photos in parallel: launcher, process group and devices of DDP, and nothing averaged.

Stock DDP broadcasts rank 0's parameters and averages gradients, which would silently mix the
perturbations of different photos.
"""

from __future__ import annotations

import datetime
import time
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn

from anti_i2v_lit.lit.launching import RankLauncher
from anti_i2v_lit.rank_loss import noticing_loss

# A rank that has finished waits for the others, which may have many photos to try again.
_PATIENCE = datetime.timedelta(days=30)
_LISTEN_SECONDS = 0.05

T = TypeVar("T")


class PhotoParallelStrategy(DDPStrategy):
    """DDP's launch without the DDP wrapper: every rank keeps its own perturbations.

    Ranks take different numbers of steps and meet at the start and at the end only.

    Args:
        options: as for Lightning's DDPStrategy; a finished rank waits for 30 days by default.
    """

    strategy_name = "photo_parallel"

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"timeout": _PATIENCE, **options})

    def _configure_launcher(self) -> None:
        if self._start_method != "popen":
            super()._configure_launcher()
            return
        assert self.cluster_environment is not None
        self._launcher = RankLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def barrier(self, *args: Any, **options: Any) -> None:
        """Wait for the other ranks; over gloo, Python's signal handlers run meanwhile.

        Raises:
            PeerLost: one is gone.
        """
        with noticing_loss():
            if not dist.is_initialized() or dist.get_backend() != "gloo":
                super().barrier(*args, **options)
                return
            # A call that waits by itself comes back to Python, and so to handlers, at its end only.
            waiting = dist.barrier(async_op=True)
            while not waiting.is_completed():
                time.sleep(_LISTEN_SECONDS)
            waiting.wait()  # raises what went wrong

    def broadcast(self, obj: T, src: int = 0) -> T:
        """One rank's object, on all ranks.

        Raises:
            PeerLost: one is gone.
        """
        with noticing_loss():
            return super().broadcast(obj, src)

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
        # Lightning sends rank 0's SIGTERM flag to all ranks before every batch, which waits for
        # ever once the ranks' numbers of batches differ. `StopOnSignal` tells each rank itself.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    """Stands in for a collective call."""
