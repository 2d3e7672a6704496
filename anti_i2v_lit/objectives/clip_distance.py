"""Cosine distance of CLIP image features between the cloak and the clean photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest

HOW_TO_GET = (
    "CLIP weights are not part of this package. On a machine with a network run "
    "python -c \"import open_clip, torch; m = open_clip.create_model('ViT-B-32', 'openai'); "
    "torch.save(m.state_dict(), 'clip.pt')\", copy the file here and set "
    "objectives: [{name: clip_distance, weights: PATH}]; "
    "or take clip_distance out of objectives to do without it"
)


class ClipDistance(Objective):
    """Cosine distance of CLIP image embeddings, 0 (same) to 2 (opposite).

    `1 - cos(c(x'), c(x))` with c the image tower of CLIP (Radford et al., ICML 2021) as
    open_clip builds it. A positive weight keeps the meaning of the cloak, a negative one drives
    it away. Views are resized to the tower's square input as a whole, without a centre crop, so
    that every pixel counts. The gradient is zero at the clean photo itself.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the CLIP term.

        Attributes:
            weight: signed factor in the total, no unit; positive keeps the meaning.
            weights: path of a local open_clip checkpoint (.pt, .bin or .safetensors).
            architecture: open_clip's name of the model in that file, or the path of an open_clip
                model configuration (.json). The default is that of OpenAI's ViT-B-32 weights,
                which were trained with QuickGELU; open_clip's "ViT-B-32" has another activation,
                loads the same file without a word and gives other features.
        """

        weight: float = 1.0
        weights: str = ""
        architecture: str = "ViT-B-32-quickgelu"

    def __init__(self, config: Config) -> None:
        self.config = config
        model = _load_model(config)
        self._tower: nn.Module = model.visual
        self._size: tuple[int, int] = _square(model.visual.image_size)
        self._mean = torch.tensor(model.visual.image_mean)[:, None, None]
        self._std = torch.tensor(model.visual.image_std)[:, None, None]

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def place(self, device: torch.device) -> None:
        """Move the image tower to a device."""
        self._tower.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The views alone, of the cloak and of the clean photo."""
        return TapRequest(references=frozenset({"clean"}))

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        with torch.no_grad():
            clean = self._embed(references["clean"].views)
        return 1.0 - F.cosine_similarity(self._embed(cloak.views), clean, dim=-1)

    def _embed(self, views: Tensor) -> Tensor:
        resized = F.interpolate(
            views, size=self._size, mode="bicubic", align_corners=False, antialias=True
        )
        return self._tower((resized - self._mean) / self._std).float()


def _load_model(config: ClipDistance.Config) -> Any:
    """The frozen float32 model of a checkpoint file; never touches a network.

    Raises:
        ValueError: no such file, an unknown architecture, or a file that does not fit it.
    """
    import open_clip

    if not config.weights or not Path(config.weights).is_file():
        raise ValueError(f"weights: expected a CLIP file, got {config.weights!r}. {HOW_TO_GET}")
    name = config.architecture
    if name.endswith(".json"):
        open_clip.add_model_config(name)
        name = Path(name).stem
    if name not in open_clip.list_models():
        raise ValueError(
            f"architecture: open_clip knows no {name!r}; expected one of open_clip.list_models() "
            "or the path of a model configuration (.json)"
        )
    try:
        model = open_clip.create_model(name, pretrained=config.weights)
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"weights: {config.weights} does not fit architecture {name!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return model.requires_grad_(False).eval().float()


def _square(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
