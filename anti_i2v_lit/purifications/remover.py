"""A learned remover: a small network that was shown photos beside their cloaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import EMBEDDED
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.devices import best_device
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX, check_work_px, shrink

PACKAGED = Path(__file__).parent / "weights" / "remover" / "remover.safetensors"
_CHANNELS = 48
_DILATIONS = (1, 2, 4, 8, 4, 2, 1)


class RemoverNet(nn.Module):
    """Predicts the residual of a cloak: nine convolutions, dilated in the middle, 150,000 weights.

    Zhang et al. 2017, "Beyond a Gaussian Denoiser" (DnCNN), without batch normalisation, with the
    dilations of Zhang et al. 2017, "Learning Deep CNN Denoiser Prior" (IRCNN).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, _CHANNELS, 3, padding=1), nn.ReLU()]
        for gap in _DILATIONS:
            layers += [nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=gap, dilation=gap), nn.ReLU()]
        last = nn.Conv2d(_CHANNELS, 3, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers, last)

    def forward(self, photos: Tensor) -> Tensor:
        """The residual [B, 3, H, W] (cloak minus photo) in photos [B, 3, H, W] in [0, 1]."""
        return self.layers(2.0 * photos - 1.0)


@final
class LearnedRemover(Purification):
    """Subtract the residual that a network finds in the photo.

    The network looks at the photo at the size that the video model takes; the residual is enlarged
    and subtracted at the photo's own size. Severity in native units: the share of the found
    residual that is subtracted. Train one with `python -m
    anti_i2v_lit.purifications.train_remover`; the packaged one is described in its card.

    Source: Foerster et al. 2025, "LightShed", USENIX Security, with a far smaller network.

    Args:
        config: settings.
        network: already in memory; loaded by `config.path` if None.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the remover.

        Attributes:
            path: "embedded" for the packaged weights, or a file of `train_remover`.
            work_px: shorter side at which the network looks, pixels; 0 for the photo's own.
        """

        path: str = EMBEDDED
        work_px: int = DEFAULT_WORK_PX

        def __post_init__(self) -> None:
            check_work_px(self.work_px)

    def __init__(self, config: Config, network: RemoverNet | None = None) -> None:
        self.config = config
        self.network = network or load_remover(config.path)

    @property
    def is_differentiable(self) -> bool:
        """True: the gradient goes through the network."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        seen = shrink(photos, self.config.work_px)
        residual = self.network(seen.to(next(self.network.parameters()).device)).to(photos)
        return photos - severity * resize(residual, (photos.shape[-2], photos.shape[-1]))


def load_remover(path: str) -> RemoverNet:
    """Load "embedded", or a file that `train_remover` wrote; frozen, in float32.

    Raises:
        ValueError: no such file, or weights of something else.
    """
    file = PACKAGED if path == EMBEDDED else Path(path).expanduser()
    if not file.is_file():
        raise ValueError(
            f"path: expected 'embedded' or a file of remover weights, got {file}; train one with "
            "'python -m anti_i2v_lit.purifications.train_remover --clean DIR --cloaked DIR --out "
            "FILE'"
        )
    network = RemoverNet()
    try:
        state = {name: value.float() for name, value in load_file(file).items()}
        network.load_state_dict(state)
    except (RuntimeError, SafetensorError) as error:
        first = str(error).split("\n")[0]
        raise ValueError(f"{file} does not hold a remover: {first}") from error
    return network.eval().requires_grad_(False).to(best_device())
