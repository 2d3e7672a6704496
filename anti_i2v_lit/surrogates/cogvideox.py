"""CogVideoX image-to-video models as surrogates: 5B-I2V, 1.5-5B-I2V and the packaged one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
    CogVideoXImageToVideoPipeline,
)
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import cogvideox_view_size, torch_dtype
from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.surrogates.cogvideox_denoiser import (
    Rotary,
    TappedTransformer,
    keep_learned_positions,
)
from anti_i2v_lit.surrogates.cogvideox_encoder import PhotoEncoder
from anti_i2v_lit.surrogates.cogvideox_loading import CogVideoXParts, load_parts, parts_of
from anti_i2v_lit.surrogates.latent import LatentSurrogate, PromptedConfig
from anti_i2v_lit.surrogates.parameterisation import (
    Parameterisation,
    add_noise,
    diffusion_coefficients,
    target,
)
from anti_i2v_lit.types import Condition, Denoised, Draw


@dataclass(kw_only=True)
class CogVideoXSurrogateConfig(PromptedConfig):
    """Settings of a CogVideoX surrogate.

    Attributes:
        path: "embedded" for the packaged model, else a local diffusers folder; no unit.
        num_frames: length of the reference clip, video frames; 0 for the model's own. Fewer cost
            less. The published models make one latent frame of 1 to 4 video frames, two of 5 to
            8, 13 of 49: with four, the denoiser sees a still picture and its temporal attention
            has nothing to attend to; five is the shortest clip in which a frame without the photo
            depends on the frame with it.
        height: of the views, pixels; 0 for the model's own. CogVideoX1.5 has no single size of
            its own (it was trained at 768 x 1360): give one.
    """

    path: str = "embedded"


class CogVideoXSurrogate(LatentSurrogate):
    """A CogVideoX image-to-video diffusion transformer with its causal autoencoder.

    Yang et al. 2024, "CogVideoX", arXiv 2408.06072; the computation is that of diffusers'
    `CogVideoXImageToVideoPipeline`, with two deliberate differences: where the pipeline samples
    the autoencoder's posterior, this takes its mean, so that gradients do not depend on a draw;
    and a model with learned positions keeps them in clips shorter than its own.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; loaded from `config.path`
            if None.

    Raises:
        ValueError: no such checkpoint, or a size that the model cannot take.
    """

    Config = CogVideoXSurrogateConfig

    def __init__(
        self, config: CogVideoXSurrogateConfig, parts: CogVideoXParts | None = None
    ) -> None:
        if parts is None:
            parts = load_parts(config.path, torch_dtype(config.dtype), config.prompting())
        self._dtype = parts.transformer.dtype
        self._prompts = parts.prompts
        settings: Any = parts.transformer.config
        self._settings = settings
        schedule: Any = parts.scheduler.config
        self._kind = Parameterisation(schedule.prediction_type)
        vae: Any = parts.vae.config
        self._spatial_ratio = 2 ** (len(vae.block_out_channels) - 1)
        self._clip_scale = float(vae.scaling_factor)
        # CogVideoX1.5 was trained on image latents that were divided by the factor.
        self._image_scale = 1 / self._clip_scale if vae.invert_scale_latents else self._clip_scale
        self._frames = config.num_frames or settings.sample_frames
        self._size = cogvideox_view_size(
            self._settings, self._spatial_ratio, config.height, config.width
        )
        latent_frames = math.ceil(self._frames / vae.temporal_compression_ratio)
        keep_learned_positions(parts.transformer, latent_frames)
        self._warn_of_untrained_length()
        self._denoiser = TappedTransformer(
            parts.transformer, parts.scheduler.alphas_cumprod, config.activation_checkpointing
        )
        self._encoder = PhotoEncoder(parts.vae, config.activation_checkpointing)
        self._rotary: dict[tuple[int, torch.device], Rotary] = {}
        self.freeze()
        if config.compile == "blocks":
            self.compile_blocks()

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with the switches of CogVideoX-5B-I2V: 3 blocks, 32 px, 5 frames."""
        return cls(CogVideoXSurrogateConfig(), parts_of(tiny_cogvideox()))

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The denoiser and the encoder half of the autoencoder."""
        return (self._denoiser, self._encoder)

    @property
    def num_timesteps(self) -> int:
        """Length of the training schedule."""
        return len(self._denoiser.alphas_cumprod)

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        """`block.0` ...: video tokens after each transformer block."""
        return self._denoiser.tap_names

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        """`encoder.conv_in`, `encoder.down.0` ..., `encoder.mid`."""
        return self._encoder.tap_names

    def _blocks(self) -> Sequence[nn.Module]:
        return list(self._denoiser.transformer.transformer_blocks)

    def _prepare_prompts(self, prompts: Sequence[str]) -> None:
        self._prompts.prepare(prompts)

    def _truncate(self, taps: frozenset[str], prediction: bool) -> None:
        if not prediction:
            self._denoiser.truncate(taps)

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        mean, features = self._encoder(self._enter(views), encoder_taps)
        return Condition(
            latents=self._image_scale * mean.float(),
            features={name: value.float() for name, value in features.items()},
        )

    def _encode_clip(self, clips: Tensor) -> Tensor:
        """As in training: CogVideoX1.5 repeats the first latent to fill its temporal patches."""
        mean = self._encoder.encode_clips(self._enter(clips).transpose(1, 2))
        latents = self._clip_scale * mean.transpose(1, 2).float()
        missing = -latents.shape[1] % (self._settings.patch_size_t or 1)
        return torch.cat([latents[:, :1].expand(-1, missing, -1, -1, -1), latents], dim=1)

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        clean = draw.clip_latents
        num_frames = clean.shape[1]
        if num_frames % (self._settings.patch_size_t or 1):
            raise ValueError(
                f"clip latents: expected a multiple of {self._settings.patch_size_t} latent "
                f"frames, got {num_frames}; take them from encode_clip, which pads them"
            )
        alpha, sigma = diffusion_coefficients(self._denoiser.alphas_cumprod, draw.timesteps)
        noisy = add_noise(clean, draw.noise, alpha, sigma)
        image = condition.latents[:, None]
        later = torch.zeros_like(image).expand(-1, num_frames - 1, -1, -1, -1)
        joined = torch.cat([noisy, torch.cat([image, later], dim=1)], dim=2)
        output, features = self._denoiser(
            joined.to(self._dtype),
            self._prompts.embed(draw.prompts, joined.device),
            draw.timesteps,
            self._rotary_positions(num_frames, joined.device),
            taps,
            prediction,
        )
        return Denoised(
            prediction=None if output is None else output.float(),
            target=target(self._kind, clean, draw.noise, alpha, sigma),
            features={name: value.float() for name, value in features.items()},
        )

    def _enter(self, photos: Tensor) -> Tensor:
        """From [0, 1] in float32 to [-1, 1] in the model's precision."""
        return (2.0 * photos - 1.0).to(self._dtype)

    def _rotary_positions(self, num_latent_frames: int, device: torch.device) -> Rotary | None:
        if not self._settings.use_rotary_positional_embeddings:
            return None
        key = (num_latent_frames, device)
        if key not in self._rotary:
            # The pipeline's own method; it reads two attributes of its pipeline, given here.
            owner: Any = SimpleNamespace(
                vae_scale_factor_spatial=self._spatial_ratio,
                transformer=SimpleNamespace(config=self._settings),
            )
            self._rotary[key] = CogVideoXImageToVideoPipeline._prepare_rotary_positional_embeddings(
                owner, *self._size, num_latent_frames, device
            )
        return self._rotary[key]

    def _warn_of_untrained_length(self) -> None:
        if not self._settings.use_learned_positional_embeddings:
            return
        if self._frames > self._settings.sample_frames:
            warnings.warn(
                f"this model has learned positions for {self._settings.sample_frames} frames; at "
                f"{self._frames} it runs with sinusoidal ones, as the diffusers pipeline does",
                stacklevel=3,
            )
