"""A term at which the first life of a job waits until the job is warned."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor

from anti_i2v_lit.objectives.latent_zero import ZeroLatent
from anti_i2v_lit.slurm.signals import REQUEST
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation

NAME = "holding"
STEPS = 20


class Holding(ZeroLatent):
    """`latent_zero`, which gets no further than a few steps before SLURM has warned the job."""

    steps = 0

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        self.steps += torch.is_grad_enabled()
        first_life = "SLURM_JOB_ID" in os.environ and not int(
            os.environ.get("SLURM_RESTART_COUNT") or 0
        )
        while first_life and self.steps > STEPS and REQUEST.received is None:
            time.sleep(0.05)
        return super()._loss(surrogate, cloak, references)


def offer(folder: Path) -> str:
    """Make a folder that offers the term to programs that have it in their PYTHONPATH."""
    facts = folder / "anti_i2v_holding-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: anti-i2v-holding\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(
        f"[anti_i2v_lit.objectives]\n{NAME} = {__name__}:{Holding.__name__}\n"
    )
    return str(folder)
