"""DynamiCrafter as a surrogate: the photo enters as latents and as CLIP tokens, both tapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import torch_dtype
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.surrogates.blocks import recomputed
from anti_i2v_lit.surrogates.dynamicrafter.loading import (
    DynamiCrafterParts,
    load_encoding_parts,
)
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_parts
from anti_i2v_lit.surrogates.dynamicrafter.model import Schedule
from anti_i2v_lit.surrogates.dynamicrafter.sizes import check_size, clip_length, view_size_of
from anti_i2v_lit.surrogates.latent import LatentSurrogate, PromptedConfig
from anti_i2v_lit.surrogates.parameterisation import add_noise, diffusion_coefficients, target
from anti_i2v_lit.types import Condition, Denoised, Draw


@dataclass(kw_only=True)
class DynamiCrafterSurrogateConfig(PromptedConfig):
    """Settings of a DynamiCrafter surrogate.

    Attributes:
        path: "embedded" for the packaged model, else a local folder with `model.ckpt` or
            `model.safetensors`; no unit.
        size: 256, 512 or 1024 for the published model of that size; 0 to follow `config.yaml`
            beside the checkpoint, or else what the checkpoint holds.
        num_frames: length of the reference clip, video frames, each of which is a latent frame;
            0 for the model's own, 16. Fewer cost less, more are refused.
        fps: what the model is told: frames per second (512, 1024) or frame stride (256); 0 for
            the model's own.
    """

    path: str = "embedded"
    size: int = 0
    fps: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        super().__post_init__()
        check_size(self.size)
        check_at_least(self.fps, 0, "fps")


class DynamiCrafterSurrogate(LatentSurrogate):
    """A DynamiCrafter latent video U-Net with its autoencoder of frames and its CLIP embedder.

    Xing et al. 2023, "DynamiCrafter", arXiv 2310.12190; the computation is that of the released
    training code, with one deliberate difference: where that samples the autoencoder's
    posterior, this takes its mean, so that gradients do not depend on a draw.

    The photo is a condition twice. Its latent is joined to every frame's noisy latent, and its
    CLIP tokens become, through the Resampler, 16 context tokens for each frame:
    `Condition.image_embedding`. With the dynamic rescale of 512 and 1024, clean latents are
    multiplied by a factor of the timestep before noise is added; `Denoised.target` is that of
    the rescaled latents, as in training.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; loaded from `config.path`
            if None.

    Raises:
        ValueError: no such checkpoint, or a size that the model cannot take.
    """

    Config = DynamiCrafterSurrogateConfig

    def __init__(
        self, config: DynamiCrafterSurrogateConfig, parts: DynamiCrafterParts | None = None
    ) -> None:
        if parts is None:
            dtype = torch_dtype(config.dtype)
            parts = load_encoding_parts(config.path, config.size, dtype, config.prompting())
        parts.first_stage.drop_decoder()
        self._settings, self._prompts = parts.settings, parts.prompts
        self._unet, self._first_stage = parts.unet, parts.first_stage
        self._embedder, self._resampler = parts.embedder, parts.resampler
        self._schedule = Schedule(parts.settings)
        self._dtype = next(parts.unet.parameters()).dtype
        self._checkpointing = config.activation_checkpointing
        parts.unet.checkpointing = parts.embedder.checkpointing = self._checkpointing
        self._frames = clip_length(parts.settings, config.num_frames)
        self._size = view_size_of(parts.settings, config.height, config.width)
        self._fps = config.fps or parts.unet.settings.default_fs
        self.freeze()
        if config.compile == "blocks":
            self.compile_blocks()

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with the switches of the 512 model: two resolutions, 32 px, 3 frames."""
        return cls(DynamiCrafterSurrogateConfig(), tiny_parts())

    @property
    def modules(self) -> Sequence[nn.Module]:
        """Denoiser, encoder half of the autoencoder, CLIP embedder, Resampler, schedule."""
        return (self._unet, self._first_stage, self._embedder, self._resampler, self._schedule)

    @property
    def num_timesteps(self) -> int:
        """Length of the training schedule."""
        return self._settings.timesteps

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        """`input.0` ..., `middle`, `output.0` ...: places of all frames after each block."""
        return self._unet.tap_names

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        """`encoder.conv_in`, `encoder.down.0` ..., `encoder.mid`."""
        return self._first_stage.tap_names

    def _blocks(self) -> Sequence[nn.Module]:
        return self._unet.blocks()

    def _prepare_prompts(self, prompts: Sequence[str]) -> None:
        self._prompts.prepare(prompts)

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        photos = 2.0 * views - 1.0
        moments, features = self._first_stage.moments_and_taps(
            photos.to(self._dtype), encoder_taps, self._checkpointing
        )
        return Condition(
            latents=self._settings.scale_factor * _mean(moments).float(),
            features={name: value.float() for name, value in features.items()},
        )

    def _image_embedding(self, views: Tensor) -> Tensor:
        """The Resampler's tokens for the frames in use, the first frame's first [B, N, D]."""
        tokens = self._embedder(2.0 * views - 1.0)
        made = recomputed(self._resampler, self._checkpointing, tokens)
        return self._resampler.first_frames(made, self._frames).float()

    def _encode_clip(self, clips: Tensor) -> Tensor:
        frames = (2.0 * clips.flatten(0, 1) - 1.0).to(self._dtype)
        at_once = 1 if self._settings.frame_by_frame else self._frames
        means = [_mean(self._first_stage.moments(part)).float() for part in frames.split(at_once)]
        return self._settings.scale_factor * torch.cat(means).unflatten(0, clips.shape[:2])

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        assert condition.image_embedding is not None
        num_frames = draw.clip_latents.shape[1]
        if num_frames != self._frames:
            raise ValueError(f"clip latents: expected {self._frames} frames, got {num_frames}")
        scales = self._schedule.scales[draw.timesteps][:, None, None, None, None]
        clean = scales * draw.clip_latents
        alpha, sigma = diffusion_coefficients(self._schedule.alphas_cumprod, draw.timesteps)
        noisy = add_noise(clean, draw.noise, alpha, sigma)
        image = condition.latents[:, None].expand(-1, num_frames, -1, -1, -1)
        joined = torch.cat([noisy, image], dim=2).transpose(1, 2).to(self._dtype)
        words = self._prompts.embed(draw.prompts, joined.device)
        output, features = self._unet.tapped(
            joined,
            draw.timesteps,
            torch.cat([words, condition.image_embedding.to(self._dtype)], dim=1),
            torch.full_like(draw.timesteps, self._fps),
            taps,
            prediction,
        )
        return Denoised(
            prediction=None if output is None else output.transpose(1, 2).float(),
            target=target(self._settings.kind, clean, draw.noise, alpha, sigma),
            features={name: _tokens(v, num_frames).float() for name, v in features.items()},
        )


def _mean(moments: Tensor) -> Tensor:
    return moments.chunk(2, dim=1)[0]


def _tokens(maps: Tensor, num_frames: int) -> Tensor:
    """Maps [B * T, D, h, w] as tokens [B, T * h * w, D]."""
    return maps.flatten(2).transpose(1, 2).unflatten(0, (-1, num_frames)).flatten(1, 2)
