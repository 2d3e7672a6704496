"""The white-box seam: photo -> condition -> denoiser features, with gradients to the photo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from anti_i2v_lit.checks import check_in, check_photos
from anti_i2v_lit.types import Condition, Denoised, Draw


class Surrogate(ABC):
    """A frozen image-to-video model that gradients flow through.

    It is a plain object, not an `nn.Module`, so that no LightningModule that holds it ever
    registers, moves, broadcasts or checkpoints its weights.

    A variant provides the hooks with a leading underscore and `modules`; this class guarantees
    frozen weights in eval mode, checked photos, known taps, and finite shapes.
    """

    Config: type[Any]
    _around: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    @abstractmethod
    def modules(self) -> Sequence[nn.Module]:
        """All networks that hold weights."""

    @property
    @abstractmethod
    def view_size(self) -> tuple[int, int]:
        """(H, W) in pixels of the views it takes."""

    @property
    @abstractmethod
    def num_frames(self) -> int:
        """Frames of the reference clip."""

    @property
    @abstractmethod
    def num_timesteps(self) -> int:
        """Length of the training schedule; timesteps are integers in [0, num_timesteps)."""

    @property
    def takes_prompts(self) -> bool:
        """Whether a prompt changes the prediction; models without a text input say False."""
        return True

    @property
    def noises_photos(self) -> bool:
        """Whether noise of the draw is added to a photo before it is encoded."""
        return False

    @property
    @abstractmethod
    def denoiser_taps(self) -> tuple[str, ...]:
        """Names of the denoiser's taps, shallow to deep."""

    @property
    @abstractmethod
    def encoder_taps(self) -> tuple[str, ...]:
        """Names of the VAE encoder's taps, shallow to deep."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> Self:
        """A miniature with seeded random weights and the published structure, for tests."""

    def _blocks(self) -> Sequence[nn.Module]:
        """The blocks of the denoiser, or the layers that its pass runs one by one."""
        return ()

    @abstractmethod
    def _condition(self, views: Tensor, encoder_taps: frozenset[str]) -> Condition: ...

    def _condition_at(self, views: Tensor, encoder_taps: frozenset[str], draw: Draw) -> Condition:
        """The condition under a draw, for models that add noise to a photo before encoding it."""
        return self._condition(views, encoder_taps)

    def _image_embedding(self, views: Tensor) -> Tensor | None:
        """What the denoiser sees of a photo besides its latent, [B, N, D], of models that do."""
        del views
        return None

    @abstractmethod
    def _encode_clip(self, clips: Tensor) -> Tensor: ...

    @abstractmethod
    def _denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised: ...

    def _truncate(self, taps: frozenset[str], prediction: bool) -> None:
        """Drop the denoiser's blocks that no pass with these arguments runs; by default none."""
        del taps, prediction

    def _prepare_prompts(self, prompts: Sequence[str]) -> None:
        """Embed texts that `_denoise` will be given; by default there is nothing to prepare."""
        del prompts

    @final
    def prepare_prompts(self, prompts: Sequence[str]) -> None:
        """Embed texts together, so that a text encoder is loaded once for all of them.

        Nothing is lost without it, but then every new text loads the encoder again.

        Args:
            prompts: texts of draws to come; repeated and known ones cost nothing.
        """
        if prompts:
            self._prepare_prompts(prompts)

    @final
    def truncate(self, taps: frozenset[str], prediction: bool) -> None:
        """Give up what later passes do not need; `denoiser_taps` keeps all its names.

        Args:
            taps: denoiser taps that will be asked for.
            prediction: whether the denoiser's output will be.

        Raises:
            ValueError: unknown tap.
        """
        for name in taps:
            check_in(name, self.denoiser_taps, "denoiser tap")
        self._truncate(taps, prediction)

    @final
    def run_within(self, around: Callable[[], AbstractContextManager[object]]) -> None:
        """Run every pass from now on within what `around` makes (weights that come and go)."""
        self._around = around

    @final
    def freeze(self) -> None:
        """Put every network in eval mode without gradients; adapters call this when loaded."""
        for module in self.modules:
            module.requires_grad_(False).eval()

    @final
    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Run the denoiser's blocks through torch.compile from now on.

        Blocks of one shape share what is compiled, and recomputation goes on around them.
        Answers change by rounding.

        Args:
            backend: of torch.compile.
        """
        blocks = self._blocks()
        # Blocks of one class share a count of what was compiled; a U-Net has as many shapes as
        # blocks, each with gradients and without, and beyond the limit they would run uncompiled.
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, 4 * len(blocks))
        for block in blocks:
            block.compile(backend=backend, dynamic=False)

    @final
    def to(self, device: torch.device | str) -> Self:
        """Move the weights; returns self."""
        for module in self.modules:
            module.to(device)
        return self

    @final
    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.modules[0].parameters()).device

    @final
    def condition(
        self,
        views: Tensor,
        encoder_taps: frozenset[str] = frozenset(),
        draw: Draw | None = None,
        *,
        embedding: bool = True,
    ) -> Condition:
        """Encode views as the model's image condition, with gradients.

        Args:
            views: [B, 3, H, W] in [0, 1], float32, of `view_size`.
            encoder_taps: names out of `encoder_taps` to return as features.
            draw: the draw that the denoiser will run at: models that add noise to a photo before
                they encode it take the noise from there. Without it nothing is added.
            embedding: whether the image embedding is needed, of models that have one. Only the
                denoiser looks at it.

        Raises:
            ValueError: wrong shape, range or tap name.
        """
        check_photos(views, "views")
        if tuple(views.shape[-2:]) != self.view_size:
            raise ValueError(f"views: expected {self.view_size} pixels, got {views.shape[-2:]}")
        for name in encoder_taps:
            check_in(name, self.encoder_taps, "encoder tap")
        return self._encoded(views, encoder_taps, draw, embedding=embedding)

    @final
    def _encoded(
        self, views: Tensor, encoder_taps: frozenset[str], draw: Draw | None, *, embedding: bool
    ) -> Condition:
        """`condition` without its checks, which look at values."""
        with self._around():
            if draw is None:
                found = self._condition(views, encoder_taps)
            else:
                found = self._condition_at(views, encoder_taps, draw)
            if not embedding:
                return found
            return replace(found, image_embedding=self._image_embedding(views))

    @final
    @torch.no_grad()
    def encode_clip(self, clips: Tensor) -> Tensor:
        """Encode reference clips; no gradient.

        Args:
            clips: [B, num_frames, 3, H, W] in [0, 1].

        Returns:
            Latents [B, F, C, h, w] in the denoiser's scale.

        Raises:
            ValueError: wrong shape or range.
        """
        check_photos(clips.flatten(0, 1), "clip frames")
        expected = (self.num_frames, 3, *self.view_size)
        if tuple(clips.shape[1:]) != expected:
            raise ValueError(f"clips: expected [B, {expected}], got {tuple(clips.shape)}")
        with self._around():
            return self._encode_clip(clips)

    @final
    def draw(
        self,
        clip_latents: Tensor,
        generators: Sequence[torch.Generator],
        prompts: Sequence[str],
        timestep_range: tuple[float, float] = (0.0, 1.0),
    ) -> Draw:
        """Draw timestep and noise for each photo from its own generator.

        Args:
            clip_latents: [B, F, C, h, w].
            generators: one CPU generator per photo.
            prompts: one text per photo.
            timestep_range: lowest and highest timestep, as shares of the schedule.
        """
        low = min(int(timestep_range[0] * self.num_timesteps), self.num_timesteps - 1)
        high = max(int(timestep_range[1] * self.num_timesteps), low + 1)
        steps = [torch.randint(low, high, (), generator=g) for g in generators]
        noise = [torch.randn(clip_latents.shape[1:], generator=g) for g in generators]
        return Draw(
            clip_latents=clip_latents,
            noise=torch.stack(noise).to(clip_latents),
            timesteps=torch.stack(steps).to(clip_latents.device),
            prompts=tuple(prompts),
        )

    @final
    def denoise(
        self, condition: Condition, draw: Draw, taps: frozenset[str], prediction: bool
    ) -> Denoised:
        """Run the denoiser once on the noised clip under an image condition.

        Args:
            condition: from `condition`.
            draw: from `draw`.
            taps: denoiser taps to return.
            prediction: whether the output is needed; without it, blocks after the deepest tap
                do not run.

        Raises:
            ValueError: unknown tap.
        """
        for name in taps:
            check_in(name, self.denoiser_taps, "denoiser tap")
        with self._around():
            return self._denoise(condition, draw, taps, prediction)
