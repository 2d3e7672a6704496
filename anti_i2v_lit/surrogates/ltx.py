"""LTX-Video as a surrogate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline
from torch import Tensor, nn
from transformers import AutoTokenizer, T5EncoderModel

from anti_i2v_lit.checkpoints import (
    LTX,
    check_clip_length,
    checkpoint_folder,
    free_view_size,
    quiet_loading,
    torch_dtype,
)
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.miniatures.ltx import tiny_ltx
from anti_i2v_lit.surrogates.encoder_loading import load_without_decoder
from anti_i2v_lit.surrogates.flow_matching import (
    FlowSchedule,
    with_given_frame,
    without_given_frame,
)
from anti_i2v_lit.surrogates.latent import LatentSurrogate, PromptedConfig
from anti_i2v_lit.surrogates.ltx_networks import Grid, LTXEncoder, TappedLTXTransformer
from anti_i2v_lit.surrogates.masked_text import Marked, split_mark
from anti_i2v_lit.surrogates.parameterisation import Parameterisation, add_noise, target
from anti_i2v_lit.surrogates.prompts import PromptEmbedder, Prompting, text_model_key
from anti_i2v_lit.types import Condition, Denoised, Draw

# The pipeline's own.
_MAX_TOKENS = 128
_OWN_SIZE = (512, 704)


@dataclass(kw_only=True)
class LTXSurrogateConfig(PromptedConfig):
    """Settings of an LTX-Video surrogate.

    Attributes:
        path: local diffusers folder; no unit. There is no packaged model of this class.
        num_frames: length of the reference clip, video frames; 0 for the shortest that has a
            frame to predict: 9, which are two latent frames. 1 plus a multiple of 8.
        height: of the views, pixels; 0 for the pipeline's 512. A multiple of 32.
        width: of the views, pixels; 0 for the pipeline's 704. A multiple of 32.
        frame_rate: of the clip, frames per second; it scales the positions in time.
    """

    path: str = ""
    frame_rate: float = 25.0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        super().__post_init__()
        check_at_least(self.frame_rate, 1.0, "frame_rate")


@dataclass(frozen=True, kw_only=True)
class LTXParts:
    """What the surrogate needs of a pipeline, in memory.

    Attributes:
        transformer: the denoiser.
        vae: the autoencoder; the surrogate takes its encoder.
        schedule: configuration of the scheduler.
        prompts: texts to embeddings with their mask (`masked_text.Marked`).
    """

    transformer: LTXVideoTransformer3DModel
    vae: AutoencoderKLLTXVideo
    schedule: Mapping[str, Any]
    prompts: PromptEmbedder


class LTXSurrogate(LatentSurrogate):
    """LTX-Video: the photo is the first latent frame, given at timestep 0.

    HaCohen et al. 2024, "LTX-Video", arXiv 2501.00103; the computation is that of diffusers'
    `LTXImageToVideoPipeline`, with one deliberate difference: where the pipeline samples the
    autoencoder's posterior, this takes its mean, so that gradients do not depend on a draw. The
    flow of the given frame is thrown away in sampling; prediction and target are zero there.
    Integer timesteps stand for noise levels as in `flow_matching`, with the shift that the
    folder's scheduler uses at the clip's number of tokens.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; loaded from `config.path`
            if None.

    Raises:
        ValueError: no such checkpoint, or a size or length that the model cannot take.
    """

    Config = LTXSurrogateConfig

    def __init__(self, config: LTXSurrogateConfig, parts: LTXParts | None = None) -> None:
        if parts is None:
            parts = load_parts(config.path, torch_dtype(config.dtype), config.prompting())
        self._dtype = parts.transformer.proj_in.weight.dtype
        self._prompts = parts.prompts
        settings: Any = parts.transformer.config
        if (settings.patch_size, settings.patch_size_t) != (1, 1):
            raise ValueError("transformer: expected tokens of one latent each (patch_size 1)")
        spatial = parts.vae.spatial_compression_ratio
        temporal = parts.vae.temporal_compression_ratio
        self._frames = config.num_frames or 1 + temporal
        check_clip_length(self._frames, temporal, 1 + temporal)
        self._size = free_view_size(config.height, config.width, _OWN_SIZE, spatial)
        self._grid: Grid = (
            1 + (self._frames - 1) // temporal,
            self._size[0] // spatial,
            self._size[1] // spatial,
        )
        self._positions = (temporal / config.frame_rate, float(spatial), float(spatial))
        num_tokens = self._grid[0] * self._grid[1] * self._grid[2]
        self._schedule = FlowSchedule.from_settings(parts.schedule, num_tokens)
        self._denoiser = TappedLTXTransformer(parts.transformer, config.activation_checkpointing)
        self._encoder = LTXEncoder(parts.vae, config.activation_checkpointing)
        self.freeze()
        if config.compile == "blocks":
            self.compile_blocks()

    @classmethod
    def tiny(cls) -> Self:
        """A miniature: 3 blocks, 64 px, 9 frames."""
        return cls(LTXSurrogateConfig(height=64, width=64), parts_of(tiny_ltx()))

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The denoiser and the encoder half of the autoencoder."""
        return (self._denoiser, self._encoder)

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
        return list(self._denoiser.transformer.transformer_blocks)

    def _prepare_prompts(self, prompts: Sequence[str]) -> None:
        self._prompts.prepare(prompts)

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        latents, features = self._encoder(2.0 * views[:, :, None] - 1.0, encoder_taps)
        return Condition(
            latents=latents[:, :, 0],
            features={name: value.float() for name, value in features.items()},
        )

    def _encode_clip(self, clips: Tensor) -> Tensor:
        latents, _ = self._encoder(2.0 * clips.transpose(1, 2) - 1.0, frozenset())
        return latents.transpose(1, 2)

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        sigmas = self._schedule.sigmas(draw.timesteps)
        clean, noise = draw.clip_latents, draw.noise
        noisy = add_noise(clean, noise, 1.0 - sigmas, sigmas)
        tokens = _to_tokens(with_given_frame(noisy, condition.latents))
        per_frame = self._grid[1] * self._grid[2]
        times = self._schedule.network_timesteps(draw.timesteps)
        predicted = torch.arange(tokens.shape[1], device=tokens.device) >= per_frame
        output, features = self._denoiser(
            tokens.to(self._dtype),
            split_mark(self._prompts.embed(draw.prompts, tokens.device)),
            times[:, None] * predicted,
            (self._grid, self._positions),
            taps,
            prediction,
        )
        flow = target(Parameterisation.FLOW, clean, noise, 1.0 - sigmas, sigmas)
        return Denoised(
            prediction=None if output is None else self._masked_frames(output.float()),
            target=without_given_frame(flow),
            features={name: value.float() for name, value in features.items()},
        )

    def _masked_frames(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, C] as latent frames [B, F, C, h, w], zero where the photo was given."""
        return without_given_frame(tokens.unflatten(1, self._grid).movedim(-1, 2))


def _to_tokens(latents: Tensor) -> Tensor:
    """Latent frames [B, F, C, h, w] as tokens [B, F * h * w, C]."""
    return latents.movedim(2, -1).flatten(1, 3)


def load_parts(path: str, dtype: torch.dtype, prompting: Prompting) -> LTXParts:
    """Load transformer and autoencoder straight in `dtype`; the latter without its decoder.

    Args:
        path: a local folder.
        dtype: of all weights.
        prompting: how texts are embedded; those it names are, before the transformer is loaded.

    Raises:
        ValueError: no such folder, or a file is missing.
    """
    folder = checkpoint_folder(path, LTX)
    embedder = _embedder(
        partial(_load_text_model, folder, dtype),
        dtype,
        prompting,
        lambda: f"{text_model_key(folder, _MAX_TOKENS, dtype)} with mask",
    )
    embedder.prepare(prompting.texts)
    with quiet_loading():
        transformer = LTXVideoTransformer3DModel.from_pretrained(
            folder, subfolder="transformer", torch_dtype=dtype, local_files_only=True
        )
        vae = load_without_decoder(AutoencoderKLLTXVideo, folder / "vae", dtype)
    return LTXParts(
        transformer=transformer,
        vae=vae,
        schedule=json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
        prompts=embedder,
    )


def parts_of(pipeline: LTXImageToVideoPipeline) -> LTXParts:
    """Take the parts of a pipeline in memory."""

    def load() -> tuple[Any, Any]:
        return pipeline.tokenizer, pipeline.text_encoder

    return LTXParts(
        transformer=pipeline.transformer,
        vae=pipeline.vae,
        schedule=dict(pipeline.scheduler.config),
        prompts=_embedder(load, pipeline.transformer.proj_in.weight.dtype, Prompting()),
    )


def _embedder(
    load: Callable[[], tuple[Any, Any]],
    dtype: torch.dtype,
    prompting: Prompting,
    model_key: Callable[[], str] = str,
) -> PromptEmbedder:
    def load_marked() -> Any:
        tokenizer, encoder = load()
        return tokenizer, Marked(encoder, tokenizer.pad_token_id)

    return prompting.embedder(load_marked, _MAX_TOKENS, dtype, model_key)


def _load_text_model(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = T5EncoderModel.from_pretrained(
            folder / "text_encoder", dtype=dtype, local_files_only=True
        )
    return tokenizer, encoder.eval()
