"""What all adapters share: settings, size and length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from anti_i2v_lit.checkpoints import torch_dtype
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.blocks import check_compile
from anti_i2v_lit.surrogates.prompts import Prompting


@dataclass(kw_only=True)
class LatentConfig:
    """Settings of every surrogate.

    Attributes:
        dtype: precision of the weights, "float32" or "bfloat16"; photos, latents, predictions
            and features outside the model are float32 always.
        num_frames: length of the reference clip, video frames; 0 for the model's own.
        height: of the views, pixels; 0 for the model's own.
        width: of the views, pixels; 0 for the model's own.
        activation_checkpointing: recompute blocks in the backward pass instead of storing them:
            about a third more time for a fraction of the memory; on or off.
        compile: "blocks" to run the denoiser's blocks through torch.compile, which takes minutes at
            the start and needs a C++ compiler; "none" not to.
    """

    dtype: str = "float32"
    num_frames: int = 0
    height: int = 0
    width: int = 0
    activation_checkpointing: bool = False
    compile: str = "none"

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        check_compile(self.compile)
        for name in ("num_frames", "height", "width"):
            check_at_least(getattr(self, name), 0, name)


@dataclass(kw_only=True)
class PromptedConfig(LatentConfig):
    """Settings of surrogates with a text input.

    Attributes:
        prompt_cache: folder for prompt embeddings, so that the text encoder (0.7 to 11.4 GB) is
            not loaded again by the next run; "" for memory only.
        prompt_device: where the text encoder runs, "cpu" or "cuda". On the CPU it never lies
            beside a denoiser, and is slow: seconds per text for the large ones. On the GPU, texts
            that are known beforehand are embedded before this model's denoiser is loaded; for
            others (captions of pipes and URLs) and for a second model of an ensemble there must be
            room for both. It changes the last bits of embeddings, and cloaks with them.
        prompts: texts to embed before the denoiser is loaded, besides those of the run.
    """

    prompt_cache: str = ""
    prompt_device: str = "cpu"
    prompts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        super().__post_init__()
        self.prompting()

    def prompting(self) -> Prompting:
        """How texts are embedded.

        Raises:
            ValueError: no such device.
        """
        return Prompting(
            cache=self.prompt_cache, device=self.prompt_device, texts=tuple(self.prompts)
        )


class LatentSurrogate(Surrogate):
    """A denoiser of latents behind an autoencoder; an adapter settles size and length once."""

    _size: tuple[int, int]
    _frames: int

    @property
    @final
    def view_size(self) -> tuple[int, int]:
        """(H, W) in pixels of the views it takes."""
        return self._size

    @property
    @final
    def num_frames(self) -> int:
        """Video frames of the reference clip."""
        return self._frames
