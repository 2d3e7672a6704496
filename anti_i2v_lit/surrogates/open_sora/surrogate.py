"""Open-Sora 1.2 as surrogate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import torch_dtype
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.surrogates.flow_matching import with_given_frame, without_given_frame
from anti_i2v_lit.surrogates.latent import LatentSurrogate, PromptedConfig
from anti_i2v_lit.surrogates.masked_text import split_mark
from anti_i2v_lit.surrogates.open_sora.captions import caption_of
from anti_i2v_lit.surrogates.open_sora.denoiser import TappedSTDiT3
from anti_i2v_lit.surrogates.open_sora.flow import NUM_TIMESTEPS, add_noise, shift_of, shifted
from anti_i2v_lit.surrogates.open_sora.loading import (
    OpenSoraParts,
    load_denoiser,
    load_photo_encoder,
    load_prompts,
    model_folder,
)
from anti_i2v_lit.surrogates.open_sora.miniature import tiny_parts
from anti_i2v_lit.surrogates.open_sora.photo_encoder import PhotoEncoder
from anti_i2v_lit.surrogates.open_sora.sizes import (
    OWN_FPS,
    OWN_SCORE,
    SHORTEST_FRAMES,
    check_num_frames,
    view_size_of,
)
from anti_i2v_lit.types import Condition, Denoised, Draw


@dataclass(kw_only=True)
class OpenSoraSurrogateConfig(PromptedConfig):
    """Settings of an Open-Sora surrogate.

    Attributes:
        path: local folder with the published repositories side by side; no unit. There is no
            packaged model of this class. See `open_sora.loading` for the layout.
        num_frames: length of the reference clip, video frames; 0 for the shortest that has a
            frame to predict: 5, which are two latent frames. 17 make five, the published 51
            fifteen.
        height: of the views, pixels; 0 for the published 240. The published sizes at 480p are
            480 x 854, 640 x 640 and 854 x 480.
        width: of the views, pixels; 0 for the published 426.
        fps: frame rate that the model is told, frames per second.
        aesthetic_score: that is appended to the captions, about 4 to 7; 0 for none.
    """

    path: str = ""
    fps: float = OWN_FPS
    aesthetic_score: float = OWN_SCORE

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        super().__post_init__()
        check_num_frames(self.num_frames)
        view_size_of(self.height, self.width)
        check_at_least(self.fps, 1, "fps")
        check_at_least(self.aesthetic_score, 0, "aesthetic_score")


class OpenSoraSurrogate(LatentSurrogate):
    """Open-Sora 1.2: STDiT3-XL/2 on the latents of a 2D and a temporal autoencoder.

    Zheng et al. 2024, "Open-Sora: Democratizing Efficient Video Production for All", arXiv
    2412.20404. The photo is the first latent frame, marked by the mask as clean, at timestep 0;
    the others are noise and clip on a straight line, and the network predicts clip - noise. The
    integer timestep t stands for the published sampler's (t + 1), shifted by size and length as
    there. Where the published code samples the autoencoders' posteriors, this takes their means,
    so that gradients do not depend on a draw.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; the autoencoder loses its
            decoder. Loaded from `config.path` if None.

    Raises:
        ValueError: no such checkpoint, or a size or length that the model cannot take.
    """

    Config = OpenSoraSurrogateConfig

    def __init__(self, config: OpenSoraSurrogateConfig, parts: OpenSoraParts | None = None) -> None:
        if parts is None:
            parts = _load(config)
        else:
            parts.vae.drop_decoder()
        self.config = config
        self._dtype = parts.denoiser.dtype
        self._prompts = parts.prompts
        self._frames = config.num_frames or SHORTEST_FRAMES
        self._size = view_size_of(config.height, config.width)
        latent_frames = parts.vae.num_latent_frames(self._frames)
        self._shift = shift_of(self._size, self._frames, latent_frames)
        self._denoiser = TappedSTDiT3(parts.denoiser, config.activation_checkpointing)
        self._encoder = PhotoEncoder(parts.vae, config.activation_checkpointing)
        self.freeze()
        if config.compile == "blocks":
            self.compile_blocks()

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with the published structure: 3 pairs of blocks, 32 x 48 px, 5 frames."""
        return cls(OpenSoraSurrogateConfig(height=32, width=48), tiny_parts())

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The denoiser and the encoder half of the autoencoder."""
        return (self._denoiser, self._encoder)

    @property
    def num_timesteps(self) -> int:
        """Length of the training schedule."""
        return NUM_TIMESTEPS

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        """`spatial.0`, `temporal.0`, `spatial.1` ...: tokens after each block."""
        return self._denoiser.tap_names

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        """`spatial.conv_in`, `spatial.down.0` ..., then `temporal.conv_in` ... `temporal.mid`."""
        return self._encoder.tap_names

    def _blocks(self) -> Sequence[nn.Module]:
        return self._denoiser.model.blocks()

    def _prepare_prompts(self, prompts: Sequence[str]) -> None:
        self._prompts.prepare([caption_of(text, self.config.aesthetic_score) for text in prompts])

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        mean, features = self._encoder(self._enter(views), encoder_taps)
        return Condition(
            latents=mean.float(),
            features={name: value.float() for name, value in features.items()},
        )

    def _encode_clip(self, clips: Tensor) -> Tensor:
        latents = self._encoder.encode_clips(self._enter(clips).transpose(1, 2))
        return latents.transpose(1, 2).float()

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        clean = draw.clip_latents
        timesteps = shifted(draw.timesteps + 1, self._shift)
        noisy = with_given_frame(add_noise(clean, draw.noise, timesteps), condition.latents)
        captions = [caption_of(text, self.config.aesthetic_score) for text in draw.prompts]
        states, valid = split_mark(self._prompts.embed(captions, clean.device))
        output, features = self._denoiser(
            noisy.transpose(1, 2).to(self._dtype),
            timesteps,
            states[:, None],
            valid,
            _later_frames(noisy),
            torch.full((len(noisy),), self.config.fps, device=noisy.device),
            torch.tensor(self._size, dtype=torch.float32),
            taps,
            prediction,
        )
        return Denoised(
            prediction=None if output is None else without_given_frame(output.transpose(1, 2)),
            target=without_given_frame(clean - draw.noise),
            features={name: value.float() for name, value in features.items()},
        )

    def _enter(self, photos: Tensor) -> Tensor:
        """From [0, 1] in float32 to [-1, 1] in the model's precision."""
        return (2.0 * photos - 1.0).to(self._dtype)


def _later_frames(clips: Tensor) -> Tensor:
    """The mask [B, F] of clips [B, F, ...]: every frame but the first is noisy."""
    mask = torch.ones(clips.shape[:2], dtype=torch.bool, device=clips.device)
    mask[:, 0] = False
    return mask


def _load(config: OpenSoraSurrogateConfig) -> OpenSoraParts:
    folder, dtype = model_folder(config.path), torch_dtype(config.dtype)
    prompts = load_prompts(folder, dtype, config.prompting())
    prompts.prepare([caption_of(text, config.aesthetic_score) for text in config.prompts])
    return OpenSoraParts(
        denoiser=load_denoiser(folder, dtype),
        vae=load_photo_encoder(folder, dtype),
        prompts=prompts,
    )
