"""A surrogate that costs next to nothing, to measure everything else.

It is no model: its "latents" are averages of pixels. It is not among the package's surrogates; the
bench offers it to the programs that it starts as an installed plug-in would be (`offer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Denoised, Draw

NAME = "free"
_PIXELS_PER_LATENT = 4


@dataclass(kw_only=True)
class FreeConfig:
    """Settings of the free surrogate."""

    side_px: int = 32
    """Side of its square views, pixels; a multiple of 4."""
    path: str = ""
    """Ignored: there is no checkpoint."""

    def __post_init__(self) -> None:
        """Refuse views that are no whole number of latents.

        Raises:
            ValueError: with the value.
        """
        if self.side_px < _PIXELS_PER_LATENT or self.side_px % _PIXELS_PER_LATENT:
            raise ValueError(
                f"side_px must be a multiple of {_PIXELS_PER_LATENT}, got {self.side_px}"
            )


@final
class FreeSurrogate(Surrogate):
    """Averages of pixels as image latent; no denoiser."""

    Config = FreeConfig

    def __init__(self, config: FreeConfig) -> None:
        self.config = config
        self._network = nn.Linear(1, 1)  # says on which device it is
        self.freeze()

    @property
    def modules(self) -> Sequence[nn.Module]:
        """See `Surrogate.modules`."""
        return [self._network]

    @property
    def view_size(self) -> tuple[int, int]:
        """See `Surrogate.view_size`."""
        return self.config.side_px, self.config.side_px

    @property
    def num_frames(self) -> int:
        """One: the photo itself."""
        return 1

    @property
    def num_timesteps(self) -> int:
        """See `Surrogate.num_timesteps`."""
        return 1000

    @property
    def takes_prompts(self) -> bool:
        """No text input."""
        return False

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        """None."""
        return ()

    @classmethod
    def tiny(cls) -> Self:
        """It is as small as can be."""
        return cls(FreeConfig(side_px=16))

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        return Condition(latents=F.avg_pool2d(views, _PIXELS_PER_LATENT))

    def _encode_clip(self, clips: Tensor) -> Tensor:
        frames = F.avg_pool2d(clips.flatten(0, 1), _PIXELS_PER_LATENT)
        return frames.unflatten(0, clips.shape[:2])

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        return Denoised(
            prediction=torch.zeros_like(draw.noise) if prediction else None,
            target=draw.noise,
            features={},
        )


def offer(folder: Path) -> str:
    """Make a folder that offers the surrogate to programs that have it in their PYTHONPATH.

    Returns:
        The folder, as text.
    """
    facts = folder / f"anti_i2v_{NAME}_surrogate-1.dist-info"
    facts.mkdir(parents=True, exist_ok=True)
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: anti-i2v-{NAME}-surrogate\nVersion: 1\n", encoding="utf-8"
    )
    (facts / "entry_points.txt").write_text(
        f"[anti_i2v_lit.surrogates]\n{NAME} = {__name__}:{FreeSurrogate.__name__}\n",
        encoding="utf-8",
    )
    return str(folder)
