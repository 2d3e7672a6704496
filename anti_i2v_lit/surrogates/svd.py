"""Stable Video Diffusion as a surrogate: img2vid (14 frames) and img2vid-xt (25 frames)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import torch_dtype
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.miniatures.svd import tiny_svd
from anti_i2v_lit.surrogates.latent import LatentConfig, LatentSurrogate
from anti_i2v_lit.surrogates.parameterisation import Parameterisation, add_noise, target
from anti_i2v_lit.surrogates.svd_denoiser import TappedUNet
from anti_i2v_lit.surrogates.svd_encoder import ImageEmbedder, LatentEncoder
from anti_i2v_lit.surrogates.svd_loading import SVDParts, load_parts, parts_of
from anti_i2v_lit.types import Condition, Denoised, Draw

NUM_TIMESTEPS = 1000
_FRAMES_AT_ONCE = 4  # of a clip through the autoencoder


@dataclass(kw_only=True)
class SVDSurrogateConfig(LatentConfig):
    """Settings of a Stable Video Diffusion surrogate.

    Attributes:
        path: a local diffusers folder; no unit.
        num_frames: length of the reference clip, video frames, each of which is a latent frame;
            0 for the model's own, 14 or 25. Fewer cost less.
        height: of the views, pixels; the published models were trained at 576.
        width: of the views, pixels; the published models were trained at 1024.
        fps: frame rate that the model is told, frames per second.
        motion_bucket_id: amount of motion that the model is told, 0 to 255 as in training.
        noise_aug_strength: standard deviation of the noise added to the photo before it is
            encoded, on the scale where pixels lie in [-1, 1].
        log_sigma_mean: mean of the natural logarithm of the noise level in training, no unit.
        log_sigma_std: standard deviation of the same, no unit.
    """

    path: str = ""
    height: int = 576
    width: int = 1024
    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    log_sigma_mean: float = 0.7
    log_sigma_std: float = 1.6

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        super().__post_init__()
        check_at_least(self.height, 1, "height")
        check_at_least(self.width, 1, "width")
        check_at_least(self.fps, 1, "fps")
        check_at_least(self.motion_bucket_id, 0, "motion_bucket_id")
        check_at_least(self.noise_aug_strength, 0.0, "noise_aug_strength")
        check_at_least(self.log_sigma_std, 1e-3, "log_sigma_std")


class SVDSurrogate(LatentSurrogate):
    """Stable Video Diffusion: a spatio-temporal U-Net with image latent and CLIP embedding.

    Blattmann et al. 2023, "Stable Video Diffusion", arXiv 2311.15127; the computation is that of
    diffusers' `StableVideoDiffusionPipeline`. There is no text input: prompts change nothing.

    The model knows continuous noise levels sigma (Karras et al. 2022, arXiv 2206.00364), trained
    with log(sigma) normal. Timestep i of `num_timesteps` is the (i + 1/2) / 1000 quantile of that
    distribution, so that uniform timesteps are the training distribution and a range of shares
    is a range of quantiles; sigma grows with the timestep. In the scaled variables that the
    network sees, alpha = 1 / sqrt(1 + sigma^2), its answer is a velocity prediction.

    The photo's augmentation noise is a function of the draw, so that clean, cloaked and repeated
    passes at one draw see the same; a condition without a draw has none.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; loaded from `config.path`
            if None.

    Raises:
        ValueError: no such checkpoint, or a size that the model cannot take.
    """

    Config = SVDSurrogateConfig

    def __init__(self, config: SVDSurrogateConfig, parts: SVDParts | None = None) -> None:
        if parts is None:
            parts = load_parts(config.path, torch_dtype(config.dtype))
        self.config = config
        self._dtype = parts.unet.dtype
        settings: Any = parts.unet.config
        vae: Any = parts.vae.config
        self._clip_scale = float(vae.scaling_factor)
        self._frames = config.num_frames or settings.num_frames
        self._size = (config.height, config.width)
        levels = len(settings.block_out_channels) + len(vae.block_out_channels) - 2
        if config.height % 2**levels or config.width % 2**levels:
            raise ValueError(
                f"height and width must be multiples of {2**levels} pixels, got "
                f"{config.height} x {config.width}"
            )
        sigmas = sigma_quantiles(config.log_sigma_mean, config.log_sigma_std)
        self._denoiser = TappedUNet(parts.unet, sigmas, config.activation_checkpointing)
        self._encoder = LatentEncoder(parts.vae, config.activation_checkpointing)
        self._embedder = ImageEmbedder(
            parts.image_encoder, parts.image_mean, parts.image_std, config.activation_checkpointing
        )
        self.freeze()
        if config.compile == "blocks":
            self.compile_blocks()

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with the published structure: two resolutions, 32 px, 3 frames."""
        return cls(SVDSurrogateConfig(height=32, width=32), parts_of(tiny_svd()))

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The denoiser, the encoder half of the autoencoder, and the image encoder."""
        return (self._denoiser, self._encoder, self._embedder)

    @property
    def num_timesteps(self) -> int:
        """Number of quantiles of the training distribution of noise levels."""
        return NUM_TIMESTEPS

    @property
    def takes_prompts(self) -> bool:
        """False: there is no text input."""
        return False

    @property
    def noises_photos(self) -> bool:
        """Whether the configured augmentation adds anything."""
        return self.config.noise_aug_strength > 0

    @property
    def denoiser_taps(self) -> tuple[str, ...]:
        """`down.0.attention.0` ..., `down.0` ..., `mid`, `up.0` ...: tokens of all frames.

        A block's own tap comes after its down- or upsampling; where it has none, it equals the
        block's last layer.
        """
        return self._denoiser.tap_names

    @property
    def encoder_taps(self) -> tuple[str, ...]:
        """`encoder.conv_in`, `encoder.down.0` ..., `encoder.mid`."""
        return self._encoder.tap_names

    def _blocks(self) -> Sequence[nn.Module]:
        return self._denoiser.layers()

    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition:
        return self._encode(2.0 * views - 1.0, encoder_taps)

    def _condition_at(self, views: Tensor, encoder_taps: frozenset[str], draw: Draw) -> Condition:
        noise = augmentation_noise(draw, views)
        noisy = 2.0 * views - 1.0 + self.config.noise_aug_strength * noise
        return self._encode(noisy, encoder_taps)

    def _encode(self, images: Tensor, encoder_taps: frozenset[str]) -> Condition:
        """The latent of (noised) images in [-1, 1]."""
        mean, features = self._encoder(images.to(self._dtype), encoder_taps)
        return Condition(
            # Unscaled, unlike the latents of a clip: so was the model trained.
            latents=mean.float(),
            features={name: value.float() for name, value in features.items()},
        )

    def _image_embedding(self, views: Tensor) -> Tensor:
        return self._embedder(views).float()

    def _encode_clip(self, clips: Tensor) -> Tensor:
        frames = (2.0 * clips.flatten(0, 1) - 1.0).to(self._dtype)
        means = [self._encoder(part, frozenset())[0] for part in frames.split(_FRAMES_AT_ONCE)]
        return self._clip_scale * torch.cat(means).float().unflatten(0, clips.shape[:2])

    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        assert condition.image_embedding is not None, "asked for by whoever runs the denoiser"
        clean = draw.clip_latents
        levels = self._denoiser.sigmas[draw.timesteps]
        alpha = (1.0 + levels.square()).rsqrt()
        noisy = add_noise(clean, draw.noise, alpha, levels * alpha)
        image = condition.latents[:, None].expand(-1, clean.shape[1], -1, -1, -1)
        output, features = self._denoiser(
            torch.cat([noisy, image], dim=2).to(self._dtype),
            0.25 * levels.log(),
            condition.image_embedding.to(self._dtype),
            self._added_ids(clean),
            taps,
            prediction,
        )
        return Denoised(
            prediction=None if output is None else output.float(),
            target=target(Parameterisation.VELOCITY, clean, draw.noise, alpha, levels * alpha),
            features={name: value.float() for name, value in features.items()},
        )

    def _added_ids(self, like: Tensor) -> Tensor:
        """[B, 3]; the models were trained with the frame rate minus one."""
        config = self.config
        ids = [config.fps - 1, config.motion_bucket_id, config.noise_aug_strength]
        # Rounded to the model's precision, as the pipeline hands them over.
        row = torch.tensor([ids], dtype=self._dtype, device=like.device)
        return row.expand(like.shape[0], -1)


def sigma_quantiles(log_mean: float, log_std: float) -> Tensor:
    """Noise levels of all timesteps [NUM_TIMESTEPS], float32, rising.

    Args:
        log_mean: mean of log(sigma).
        log_std: standard deviation of log(sigma).
    """
    shares = (torch.arange(NUM_TIMESTEPS, dtype=torch.float64) + 0.5) / NUM_TIMESTEPS
    return (log_mean + log_std * torch.special.ndtri(shares)).exp().float()


def augmentation_noise(draw: Draw, views: Tensor) -> Tensor:
    """Standard normal noise like `views`, one pattern per draw, the same on every device.

    Args:
        draw: a draw for B photos; its noise and timesteps name the pattern.
        views: [B, 3, H, W].
    """
    patterns = []
    for noise, timestep in zip(draw.noise, draw.timesteps, strict=True):
        name = noise.flatten()[:64].float().cpu().numpy().tobytes()
        digest = hashlib.blake2b(name + str(int(timestep)).encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        patterns.append(torch.randn(views.shape[1:], generator=generator))
    return torch.stack(patterns).to(views)
