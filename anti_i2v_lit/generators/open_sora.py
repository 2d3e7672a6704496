"""Open-Sora 1.2 as an attacker runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from anti_i2v_lit.checkpoints import torch_dtype
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.generators.latent import LatentGenerator, device_for
from anti_i2v_lit.surrogates.masked_text import split_mark
from anti_i2v_lit.surrogates.open_sora.captions import caption_of
from anti_i2v_lit.surrogates.open_sora.flow import NUM_TIMESTEPS, sampling_timesteps, shift_of
from anti_i2v_lit.surrogates.open_sora.loading import (
    OpenSoraParts,
    load_autoencoder,
    load_denoiser,
    load_prompts,
    model_folder,
)
from anti_i2v_lit.surrogates.open_sora.miniature import tiny_parts
from anti_i2v_lit.surrogates.open_sora.sizes import (
    OWN_FPS,
    OWN_FRAMES,
    OWN_SCORE,
    check_num_frames,
    view_size_of,
)
from anti_i2v_lit.surrogates.prompts import Prompting


@dataclass(kw_only=True)
class OpenSoraGeneratorConfig:
    """Settings of an Open-Sora generator; defaults are those of the published sampler.

    Attributes:
        path: local folder with the published repositories side by side; no unit. See
            `surrogates.open_sora.loading` for the layout.
        dtype: precision of the weights, "float32" or "bfloat16".
        device: where it runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        num_inference_steps: denoising steps of a clip.
        guidance_scale: weight of classifier-free guidance, a factor; 1 is none and twice as fast.
        num_frames: length of the clips, video frames; 0 for the published 51.
        height: of the frames, pixels; 0 for the published 240.
        width: of the frames, pixels; 0 for the published 426.
        fps: frame rate that the model is told, frames per second.
        aesthetic_score: that is appended to the captions, about 4 to 7; 0 for none.
    """

    path: str = ""
    dtype: str = "float32"
    device: str = "auto"
    num_inference_steps: int = 30
    guidance_scale: float = 7.0
    num_frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = OWN_FPS
    aesthetic_score: float = OWN_SCORE

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        check_at_least(self.num_inference_steps, 1, "num_inference_steps")
        check_at_least(self.guidance_scale, 1.0, "guidance_scale")
        check_num_frames(self.num_frames)
        view_size_of(self.height, self.width)
        check_at_least(self.fps, 1, "fps")
        check_at_least(self.aesthetic_score, 0, "aesthetic_score")


class OpenSoraGenerator(LatentGenerator):
    """The published image-to-video sampler of Open-Sora 1.2.

    Zheng et al. 2024, arXiv 2412.20404; `scripts/inference.py` and `schedulers/rf` of
    hpcaitech/Open-Sora, branch opensora/v1.2, with the mask strategy "0": the photo is the first
    latent frame and stays as it is, the others go from noise to clip by Euler steps. Of sides
    that are no multiples of 8 pixels, the last columns and rows have no latent; they repeat their
    neighbours in the frames, which the published script cuts off.

    Args:
        config: settings.
        parts: networks already in memory; loaded from `config.path` if None.

    Raises:
        ValueError: no such checkpoint, or a size or length that the model cannot take.
    """

    Config = OpenSoraGeneratorConfig

    def __init__(self, config: OpenSoraGeneratorConfig, parts: OpenSoraParts | None = None) -> None:
        self.config = config
        self._parts = _load(config) if parts is None else parts
        size = view_size_of(config.height, config.width)
        super().__init__(size, config.num_frames or OWN_FRAMES)
        self._device = device_for(config.device)
        for network in (self._parts.denoiser, self._parts.vae):
            network.requires_grad_(False).eval().to(self._device)
        self._dtype = self._parts.denoiser.dtype

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 32 x 52 px, 19 frames, 2 steps."""
        config = OpenSoraGeneratorConfig(
            num_inference_steps=2, num_frames=19, height=32, width=52, device="cpu"
        )
        return cls(config, tiny_parts())

    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        starts = [self._start(p, s) for p, s in zip(photos.split(1), seeds, strict=True)]
        captions = [caption_of(text, self.config.aesthetic_score) for text in prompts]
        latents = self._sample(torch.cat(starts), captions)
        # One clip at a time: the decoder needs more memory than the denoiser.
        clips = [self._decode(one, self._frames, self._size) for one in latents.split(1)]
        return torch.cat(clips)

    def _start(self, photo: Tensor, seed: int) -> Tensor:
        """The photo's latent, then noise [1, C, F, h, w], in the order of the published draws."""
        generator = torch.Generator().manual_seed(seed)
        vae = self._parts.vae
        image = vae.encode(self._enter(photo)[:, :, None], generator).float()
        shape = (1, image.shape[1], vae.num_latent_frames(self._frames), *image.shape[-2:])
        noise = torch.randn(shape, generator=generator).to(image)
        return torch.cat([image, noise[:, :, 1:]], dim=2)

    def _sample(self, latents: Tensor, captions: Sequence[str]) -> Tensor:
        """Euler steps along the flow; the first frame of [B, C, F, h, w] stays."""
        shift = shift_of(self._size, self._frames, latents.shape[2])
        timesteps = sampling_timesteps(self.config.num_inference_steps, shift)
        states, valid = split_mark(self._parts.prompts.embed(captions, self._device))
        for now, after in zip(timesteps[:-1], timesteps[1:], strict=True):
            velocity = self._velocity(latents, now, states[:, None], valid)
            moved = latents + velocity * ((now - after) / NUM_TIMESTEPS).to(latents)
            latents = torch.cat([latents[:, :, :1], moved[:, :, 1:]], dim=2)
        return latents

    def _velocity(self, latents: Tensor, now: Tensor, states: Tensor, valid: Tensor) -> Tensor:
        """Predicted clip minus noise, with classifier-free guidance."""
        conditional = self._predict(latents, now, states, valid)
        scale = self.config.guidance_scale
        if scale == 1:
            return conditional
        # As published, "no caption" is as long as the caption that it replaces.
        empty = self._parts.denoiser.y_embedder.y_embedding.expand_as(states)
        unconditional = self._predict(latents, now, empty, valid)
        return unconditional + scale * (conditional - unconditional)

    def _predict(self, latents: Tensor, now: Tensor, states: Tensor, valid: Tensor) -> Tensor:
        batch, channels, frames = latents.shape[:3]
        noisy = torch.ones(batch, frames, dtype=torch.bool, device=self._device)
        noisy[:, 0] = False
        height, width = (torch.tensor([float(side)]) for side in self._size)
        fps = torch.full((batch,), self.config.fps, device=self._device)
        times = now.to(latents).expand(batch)
        network = self._parts.denoiser
        return network(latents, times, states, valid, noisy, fps, height, width)[:, :channels]

    def _to_latents(self, images: Tensor) -> Tensor:
        vae = self._parts.vae
        entered = images.to(device=self._device, dtype=self._dtype)[:, :, None]
        return (vae.encode(entered) * vae.scale + vae.shift)[:, :, 0]

    def _to_images(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        vae = self._parts.vae
        entered = latents.to(self._device)[:, :, None]
        return 2.0 * self._decode((entered - vae.shift) / vae.scale, 1, size)[:, 0] - 1.0

    def _decode(self, latents: Tensor, num_frames: int, size: tuple[int, int]) -> Tensor:
        """Frames [B, T, 3, H, W] near [0, 1], float32, of latents [B, C, F, h, w]."""
        frames = self._parts.vae.decode(latents.to(self._dtype), num_frames).float() / 2.0 + 0.5
        missing = (0, size[1] - frames.shape[-1], 0, size[0] - frames.shape[-2], 0, 0)
        return functional.pad(frames, missing, mode="replicate").transpose(1, 2)

    def _enter(self, photos: Tensor) -> Tensor:
        """From [0, 1] in float32 to [-1, 1] in the model's precision, on its device."""
        return (2.0 * photos - 1.0).to(device=self._device, dtype=self._dtype)


def _load(config: OpenSoraGeneratorConfig) -> OpenSoraParts:
    folder, dtype = model_folder(config.path), torch_dtype(config.dtype)
    return OpenSoraParts(
        denoiser=load_denoiser(folder, dtype),
        vae=load_autoencoder(folder, dtype),
        prompts=load_prompts(folder, dtype, Prompting()),
    )
