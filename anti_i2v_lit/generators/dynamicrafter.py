"""DynamiCrafter as an attacker runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import EMBEDDED, torch_dtype
from anti_i2v_lit.checks import check_at_least, check_between, check_in
from anti_i2v_lit.generators.dynamicrafter_frames import simplify
from anti_i2v_lit.generators.dynamicrafter_sampling import SPACINGS, ddim_steps, guided, take
from anti_i2v_lit.generators.latent import LatentGenerator, device_for
from anti_i2v_lit.surrogates.dynamicrafter.loading import DynamiCrafterParts, load_parts
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_parts
from anti_i2v_lit.surrogates.dynamicrafter.model import Schedule
from anti_i2v_lit.surrogates.dynamicrafter.sizes import check_size, clip_length, view_size_of

_OWN = "own"
_OWN_GUIDANCE = 7.5
_OWN_GUIDANCE_RESCALE = 0.7


@dataclass(kw_only=True)
class DynamiCrafterGeneratorConfig:
    """Settings of a DynamiCrafter generator; defaults are those of the authors' scripts.

    Attributes:
        path: "embedded" for the packaged model, else a local folder with `model.ckpt` or
            `model.safetensors`; no unit.
        size: 256, 512 or 1024 for the published model of that size; 0 to follow `config.yaml`
            beside the checkpoint, or else what the checkpoint holds.
        dtype: precision of the weights, "float32" or "bfloat16".
        device: where it runs: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        num_inference_steps: denoising steps of a clip; 0 for the model's own: 5 for the packaged
            one (its clips are no nearer to the person with more, docs/evaluation.md), 50 for the
            published ones.
        eta: noise that each step adds, as a share of that of ancestral sampling.
        timestep_spacing: "uniform_trailing", "uniform", or "own": the former for models whose
            schedule ends in pure noise (512, 1024), the latter for the others (256).
        guidance_scale: weight of classifier-free guidance, a factor; 1 is none and twice as fast; 0
            for the model's own: 1 for the packaged one, 7.5 for the published ones.
        guidance_rescale: share of the guided prediction that is drawn back to the contrast of the
            unguided one, 0 to 1; -1 for the model's own: 0.7 for models whose schedule ends in
            pure noise, else 0.
        fps: what the model is told: frames per second (512, 1024) or frame stride (256); 0 for
            the model's own.
        num_frames: length of the clips, video frames; 0 for the model's own, 16.
        height: of the frames, pixels; 0 for the model's own.
        width: of the frames, pixels; 0 for the model's own.
    """

    path: str = "embedded"
    size: int = 0
    dtype: str = "float32"
    device: str = "auto"
    num_inference_steps: int = 0
    eta: float = 1.0
    timestep_spacing: str = _OWN
    guidance_scale: float = 0.0
    guidance_rescale: float = -1.0
    fps: int = 0
    num_frames: int = 0
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no model can take."""
        torch_dtype(self.dtype)
        check_size(self.size)
        check_at_least(self.num_inference_steps, 0, "num_inference_steps")
        check_between(self.eta, 0.0, 1.0, "eta")
        check_in(self.timestep_spacing, (*SPACINGS, _OWN), "timestep_spacing")
        if self.guidance_scale != 0:
            check_at_least(self.guidance_scale, 1.0, "guidance_scale")
        if self.guidance_rescale != -1:
            check_between(self.guidance_rescale, 0.0, 1.0, "guidance_rescale")
        for name in ("fps", "num_frames", "height", "width"):
            check_at_least(getattr(self, name), 0, name)


class DynamiCrafterGenerator(LatentGenerator):
    """DynamiCrafter sampled by DDIM as in the authors' `scripts/evaluation/inference.py`.

    Xing et al. 2023, "DynamiCrafter", arXiv 2310.12190. Without guidance means the empty prompt
    and a grey picture in front of CLIP; the photo's latent stays joined to the noise.

    Args:
        config: settings.
        parts: networks already in memory, whose precision then counts; loaded from `config.path`
            if None.

    Raises:
        ValueError: no such checkpoint, or a size that the model cannot take.
    """

    Config = DynamiCrafterGeneratorConfig

    def __init__(
        self, config: DynamiCrafterGeneratorConfig, parts: DynamiCrafterParts | None = None
    ) -> None:
        loaded = parts is None
        if parts is None:
            parts = load_parts(config.path, config.size, torch_dtype(config.dtype))
        self.config, self._parts = config, parts
        super().__init__(
            view_size_of(parts.settings, config.height, config.width),
            clip_length(parts.settings, config.num_frames),
        )
        self._device = device_for(config.device)
        networks: tuple[nn.Module, ...] = (
            parts.unet,
            parts.first_stage,
            parts.embedder,
            parts.resampler,
        )
        for network in networks:
            network.to(self._device).eval()
        if loaded and config.path == EMBEDDED and self._device.type == "cpu":
            simplify(parts.unet)
        self._dtype = next(parts.unet.parameters()).dtype
        self._fps = config.fps or parts.unet.settings.default_fs
        trailing = parts.settings.zero_snr
        own_spacing = "uniform_trailing" if trailing else "uniform"
        packaged = config.path == EMBEDDED and loaded
        own_guidance = 1.0 if packaged else _OWN_GUIDANCE
        own_steps = 5 if packaged else 50
        self._guidance = config.guidance_scale or own_guidance
        self._rescale = config.guidance_rescale
        if config.guidance_rescale == -1:
            self._rescale = _OWN_GUIDANCE_RESCALE if trailing else 0.0
        spacing = own_spacing if config.timestep_spacing == _OWN else config.timestep_spacing
        schedule = Schedule(parts.settings)
        self._steps = ddim_steps(
            schedule, config.num_inference_steps or own_steps, config.eta, spacing
        )

    @classmethod
    def tiny(cls) -> Self:
        """A miniature with random weights: 32 px, 3 frames, 2 steps."""
        config = DynamiCrafterGeneratorConfig(num_inference_steps=2, device="cpu")
        return cls(config, tiny_parts())

    def _clips(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        # One generator per photo, on the CPU, so that neither the batch nor the device changes a
        # clip's random numbers.
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        pixels = (2.0 * photos - 1.0).to(self._device)
        image = self._image_latents(pixels, sources)
        conditional = self._context(prompts, pixels)
        # Zero is grey in the embedder's range; all photos share it.
        unconditional = self._context([""], torch.zeros_like(pixels[:1])).expand_as(conditional)
        shape = (image.shape[1], self._frames, *image.shape[2:])
        latents = self._noise(sources, shape)
        for step in self._steps:
            answer = self._predict(latents, image, step.timestep, conditional)
            if self._guidance != 1:
                other = self._predict(latents, image, step.timestep, unconditional)
                answer = guided(answer, other, self._guidance, self._rescale)
            noise = self._noise(sources, shape)
            latents = take(step, self._parts.settings.kind, latents, answer, noise)
        return self._decode(latents)

    def _image_latents(self, pixels: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
        """A sample of each photo's posterior [B, C, h, w], in the denoiser's scale."""
        moments = self._parts.first_stage.moments(pixels.to(self._dtype)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        spread = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
        sample = mean + spread * self._noise(sources, mean.shape[1:])
        return self._parts.settings.scale_factor * sample

    def _context(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        words = self._parts.prompts.embed(prompts, self._device)
        made = self._parts.resampler(self._parts.embedder(pixels))
        return torch.cat([words, self._parts.resampler.first_frames(made, self._frames)], dim=1)

    def _predict(self, latents: Tensor, image: Tensor, timestep: int, context: Tensor) -> Tensor:
        repeated = image[:, :, None].expand_as(latents)
        numbers = torch.full((len(latents),), timestep, device=self._device)
        return self._parts.unet(
            torch.cat([latents, repeated], dim=1).to(self._dtype),
            numbers,
            context,
            fs=torch.full_like(numbers, self._fps),
        ).float()

    def _noise(self, sources: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(*shape, generator=s) for s in sources]).to(self._device)

    def _decode(self, latents: Tensor) -> Tensor:
        frames = latents.transpose(1, 2).flatten(0, 1) / self._parts.settings.scale_factor
        at_once = 1 if self._parts.settings.frame_by_frame else self._frames
        decoded = [
            self._parts.first_stage.decode(part.to(self._dtype)).float()
            for part in frames.split(at_once)
        ]
        return (torch.cat(decoded) / 2.0 + 0.5).unflatten(0, (len(latents), -1))

    def _to_latents(self, images: Tensor) -> Tensor:
        pixels = images.to(device=self._device, dtype=self._dtype)
        return self._parts.first_stage.moments(pixels).chunk(2, dim=1)[0]

    def _to_images(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        del size  # that of the latents
        entered = latents.to(device=self._device, dtype=self._dtype)
        return self._parts.first_stage.decode(entered)
