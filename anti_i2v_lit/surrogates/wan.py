"""Wan image-to-video models as surrogates: Wan2.2-TI2V-5B and Wan2.1-I2V-14B-480P."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import prompt_clean
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import (
    WAN_2_1,
    WAN_2_2,
    Layout,
    check_clip_length,
    free_view_size,
    torch_dtype,
)
from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2
from anti_i2v_lit.surrogates.flow_matching import (
    FlowSchedule,
    with_given_frame,
    without_given_frame,
)
from anti_i2v_lit.surrogates.latent import LatentSurrogate, PromptedConfig
from anti_i2v_lit.surrogates.parameterisation import Parameterisation, add_noise, target
from anti_i2v_lit.surrogates.wan_denoiser import TappedWanTransformer
from anti_i2v_lit.surrogates.wan_encoder import WanEncoder
from anti_i2v_lit.surrogates.wan_image import ImageEmbedder
from anti_i2v_lit.surrogates.wan_loading import WanParts, load_parts, parts_of
from anti_i2v_lit.types import Condition, Denoised, Draw


@dataclass(kw_only=True)
class WanSurrogateConfig(PromptedConfig):
    """Settings of a Wan surrogate.

    Attributes:
        path: local diffusers folder; no unit. There is no packaged model of this class.
        dtype: precision of the transformer's weights, "float32" or "bfloat16"; photos, latents,
            predictions and features outside the model are float32 always.
        encoder_dtype: precision of the autoencoder's and image encoder's weights, "float32" (as
            the model cards run them) or "bfloat16".
        num_frames: length of the reference clip, video frames; 0 for the shortest that has a
            frame to predict: 5, which are two latent frames. 1 plus a multiple of 4.
        height: of the views, pixels; 0 for the published 704 (Wan2.2-TI2V-5B) or 480 (Wan2.1).
        width: of the views, pixels; 0 for the published 1280 (Wan2.2-TI2V-5B) or 832 (Wan2.1).
    """

    path: str = ""
    encoder_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        super().__post_init__()
        torch_dtype(self.encoder_dtype)


class WanSurrogate(LatentSurrogate):
    """What the two Wan classes share: rectified flow, causal autoencoder, UMT5 prompts.

    Wan Team 2025, "Wan: Open and Advanced Large-Scale Video Generative Models", arXiv 2503.20314;
    the computation is that of diffusers' `WanImageToVideoPipeline`, which takes the mean of the
    autoencoder's posterior too. Integer timesteps stand for noise levels as in `flow_matching`,
    with the shift of the folder's scheduler.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; loaded from `config.path`
            if None.

    Raises:
        ValueError: no such checkpoint, a checkpoint of another class, or a size or length that
            the model cannot take.
    """

    Config = WanSurrogateConfig
    layout: Layout
    own_size: tuple[int, int]

    def __init__(self, config: WanSurrogateConfig, parts: WanParts | None = None) -> None:
        if parts is None:
            parts = load_parts(
                config.path,
                self.layout,
                torch_dtype(config.dtype),
                torch_dtype(config.encoder_dtype),
                config.prompting(),
            )
        self._check_class(parts)
        self._prompts = parts.prompts
        self._dtype = parts.transformer.patch_embedding.weight.dtype
        settings: Any = parts.transformer.config
        vae: Any = parts.vae.config
        self._patch: tuple[int, int, int] = tuple(settings.patch_size)
        self._ratio: int = vae.scale_factor_temporal
        self._frames = config.num_frames or 1 + self._ratio
        check_clip_length(self._frames, self._ratio, 1 + self._ratio)
        unit = vae.scale_factor_spatial * self._patch[1]
        self._size = free_view_size(config.height, config.width, self.own_size, unit)
        num_tokens = (1 + (self._frames - 1) // self._ratio) * (
            (self._size[0] // unit) * (self._size[1] // unit)
        )
        self._schedule = FlowSchedule.from_settings(parts.schedule, num_tokens)
        self._denoiser = TappedWanTransformer(parts.transformer, config.activation_checkpointing)
        self._encoder = WanEncoder(parts.vae, config.activation_checkpointing)
        self._images = self._image_path(parts, config.activation_checkpointing)
        self.freeze()
        if config.compile == "blocks":
            self.compile_blocks()

    @abstractmethod
    def _check_class(self, parts: WanParts) -> None:
        """Refuse the parts of another class of models."""

    @abstractmethod
    def _image_path(self, parts: WanParts, checkpointing: bool) -> ImageEmbedder | None:
        """The network that turns photos into image tokens, of models that have one."""

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The denoiser, the encoder half of the autoencoder and, if any, CLIP's image tower."""
        networks = (self._denoiser, self._encoder)
        return networks if self._images is None else (*networks, self._images)

    @property
    def num_timesteps(self) -> int:
        """Length of the training schedule."""
        return self._schedule.num_timesteps

    @property
    def schedule(self) -> FlowSchedule:
        """Noise levels of the timesteps."""
        return self._schedule

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        """`block.0` ...: video tokens after each transformer block."""
        return self._denoiser.tap_names

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        """`encoder.conv_in`, `encoder.down.0` ..., `encoder.mid`."""
        return self._encoder.tap_names

    def _blocks(self) -> Sequence[nn.Module]:
        return list(self._denoiser.transformer.blocks)

    def _prepare_prompts(self, prompts: Sequence[str]) -> None:
        self._prompts.prepare([prompt_clean(text) for text in prompts])

    def _encode_clip(self, clips: Tensor) -> Tensor:
        latents, _ = self._encoder(2.0 * clips.transpose(1, 2) - 1.0, frozenset())
        return latents.transpose(1, 2)

    def _noisy(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Noised clip and flow [B, F, C, h, w], and what the network is told of the time [B]."""
        sigmas = self._schedule.sigmas(draw.timesteps)
        clean, noise = draw.clip_latents, draw.noise
        noisy = add_noise(clean, noise, 1.0 - sigmas, sigmas)
        flow = target(Parameterisation.FLOW, clean, noise, 1.0 - sigmas, sigmas)
        return noisy, flow, self._schedule.network_timesteps(draw.timesteps)

    def _run(
        self,
        inputs: Tensor,
        timesteps: Tensor,
        prompts: Sequence[str],
        image: Tensor | None,
        wanted: tuple[frozenset[str], bool],
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The transformer on [B, F, C, h, w]; prediction and features in float32."""
        taps, prediction = wanted
        output, features = self._denoiser(
            inputs.transpose(1, 2).to(self._dtype),
            self._prompts.embed([prompt_clean(text) for text in prompts], inputs.device),
            None if image is None else image.to(self._dtype),
            timesteps,
            taps,
            prediction,
        )
        return (
            None if output is None else output.float().transpose(1, 2),
            {name: value.float() for name, value in features.items()},
        )


@final
class Wan22Surrogate(WanSurrogate):
    """Wan2.2-TI2V-5B: the photo is the first latent frame, given at timestep 0.

    Every video token has a timestep of its own. The flow of the given frame is neither trained
    nor used in sampling; prediction and target are zero there (`flow_matching`).
    """

    layout = WAN_2_2
    own_size = (704, 1280)

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with the switches of Wan2.2-TI2V-5B: 3 blocks, 64 px, 5 frames."""
        return cls(WanSurrogateConfig(height=64, width=64), parts_of(tiny_wan_2_2()))

    def _check_class(self, parts: WanParts) -> None:
        if not parts.expand_timesteps:
            raise ValueError(
                "path: this folder's model_index.json lacks expand_timesteps, so the photo is not "
                f"its first latent frame; expected a folder like {self.layout.source}. "
                f"For {WAN_2_1.source} use the surrogate wan_2_1"
            )

    def _image_path(self, parts: WanParts, checkpointing: bool) -> None:
        return None

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        latents, features = self._encoder(2.0 * views[:, :, None] - 1.0, encoder_taps)
        return Condition(
            latents=latents[:, :, 0],
            features={name: value.float() for name, value in features.items()},
        )

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        noisy, flow, times = self._noisy(draw)
        inputs = with_given_frame(noisy, condition.latents)
        _, frames, _, height, width = inputs.shape
        per_frame = (height // self._patch[1]) * (width // self._patch[2])
        given = (torch.arange(frames, device=times.device) > 0).repeat_interleave(per_frame)
        output, features = self._run(
            inputs, times[:, None] * given, draw.prompts, None, (taps, prediction)
        )
        return Denoised(
            prediction=None if output is None else without_given_frame(output),
            target=without_given_frame(flow),
            features=features,
        )


@final
class Wan21Surrogate(WanSurrogate):
    """Wan2.1-I2V-14B: the photo as CLIP tokens and as latents beside the noisy ones.

    `Condition.latents` holds the latents of the clip "photo, then grey" with the frames laid into
    the channels, [B, F * C, h, w]: the causal autoencoder carries the photo into the later ones.
    `Condition.image_embedding` holds the CLIP tokens. Both carry gradients.
    """

    layout = WAN_2_1
    own_size = (480, 832)

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with the switches of Wan2.1-I2V-14B: 3 blocks, 32 px, 5 frames."""
        return cls(WanSurrogateConfig(height=32, width=32), parts_of(tiny_wan_2_1()))

    def _check_class(self, parts: WanParts) -> None:
        settings: Any = parts.transformer.config
        if settings.image_dim is None or settings.pos_embed_seq_len is not None:
            raise ValueError(
                "path: this folder's transformer does not take the CLIP embedding of one photo; "
                f"expected a folder like {self.layout.source}. "
                f"For {WAN_2_2.source} use the surrogate wan_2_2"
            )

    def _image_path(self, parts: WanParts, checkpointing: bool) -> ImageEmbedder:
        return ImageEmbedder(parts.image_encoder, parts.image_processor, checkpointing)

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        photo = 2.0 * views[:, :, None] - 1.0
        grey = photo.new_zeros(()).expand(len(views), 3, self._frames - 1, *self._size)
        latents, features = self._encoder(torch.cat([photo, grey], dim=2), encoder_taps)
        return Condition(
            latents=latents.transpose(1, 2).flatten(1, 2),
            features={name: value.float() for name, value in features.items()},
        )

    def _image_embedding(self, views: Tensor) -> Tensor:
        assert self._images is not None
        return self._images(views)

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        noisy, flow, times = self._noisy(draw)
        batch, frames, _, height, width = noisy.shape
        # One mask channel per video frame of a latent frame: 1 where the photo is.
        mask = noisy.new_zeros(batch, frames, self._ratio, height, width)
        mask[:, 0] = 1.0
        image = condition.latents.unflatten(1, (frames, -1))
        output, features = self._run(
            torch.cat([noisy, mask, image], dim=2),
            times,
            draw.prompts,
            condition.image_embedding,
            (taps, prediction),
        )
        return Denoised(prediction=output, target=flow, features=features)
