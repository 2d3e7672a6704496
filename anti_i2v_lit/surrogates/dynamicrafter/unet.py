"""The denoiser: a 3D U-Net, as a loop over blocks that stops after the deepest one needed.

Xing et al. 2023, "DynamiCrafter", arXiv 2310.12190, on VideoCrafter's U-Net. The names of the
layers are those of the published checkpoints; taps are return values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from anti_i2v_lit.surrogates.dynamicrafter.attention import TEXT_TOKENS, Signals
from anti_i2v_lit.surrogates.dynamicrafter.blocks import Block, sinusoidal, zeroed
from anti_i2v_lit.surrogates.dynamicrafter.layout import UNetSettings

# Image tokens per frame at which the context is dealt out to the frames; fixed as published.
IMAGE_TOKENS_PER_FRAME = 16
# Plug-in features join every third block on the way down, as published.
_ADAPTER_PERIOD = 3


class UNet(nn.Module):
    """The denoiser, as `UNet(**config)` of the published settings.

    Args:
        config: the fields of `UNetSettings`.

    Raises:
        ValueError: settings that contradict each other.
        TypeError: unknown or missing settings.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.settings = settings = UNetSettings(**config)
        self.checkpointing = settings.use_checkpoint
        first = settings.model_channels
        self.time_embed = _embedder(first, settings.embedding_dim)
        self.fps_embedding: nn.Sequential | None = None
        if settings.fs_condition:
            self.fps_embedding = _embedder(first, settings.embedding_dim)
            zeroed(self.fps_embedding[-1])
        self.input_blocks = nn.ModuleList(
            [Block(nn.Conv2d(settings.in_channels, first, 3, padding=1))]
        )
        self.init_attn: Block | None = None
        if settings.addition_attention:
            self.init_attn = Block(settings.first_transformer())
        skipped = self._build_inputs()
        deepest = skipped[-1]
        self.middle_block = Block(
            settings.residual(deepest, deepest),
            *settings.transformers(deepest),
            settings.residual(deepest, deepest),
        )
        self.output_blocks = nn.ModuleList()
        last = self._build_outputs(skipped)
        leaving = nn.Conv2d(first, settings.out_channels, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(32, last), nn.SiLU(), zeroed(leaving))

    def _build_inputs(self) -> list[int]:
        """Append the blocks of the way down; returns the channels that each leaves behind."""
        settings = self.settings
        channels = settings.model_channels
        skipped = [channels]
        for level, mult in enumerate(settings.channel_mult):
            for _ in range(settings.num_res_blocks):
                layers: list[nn.Module] = [
                    settings.residual(channels, mult * settings.model_channels)
                ]
                channels = mult * settings.model_channels
                if 2**level in settings.attention_resolutions:
                    layers += settings.transformers(channels)
                self.input_blocks.append(Block(*layers))
                skipped.append(channels)
            if level != len(settings.channel_mult) - 1:
                self.input_blocks.append(Block(settings.down(channels)))
                skipped.append(channels)
        return skipped

    def _build_outputs(self, skipped: list[int]) -> int:
        """Append the blocks of the way up; returns the channels of the last."""
        settings = self.settings
        channels = skipped[-1]
        for level in reversed(range(len(settings.channel_mult))):
            width = settings.channel_mult[level] * settings.model_channels
            for index in range(settings.num_res_blocks + 1):
                layers: list[nn.Module] = [settings.residual(channels + skipped.pop(), width)]
                channels = width
                if 2**level in settings.attention_resolutions:
                    layers += settings.transformers(channels)
                if level and index == settings.num_res_blocks:
                    layers.append(settings.up(channels))
                self.output_blocks.append(Block(*layers))
        return channels

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, shallow to deep: one per block."""
        inputs = (f"input.{i}" for i in range(len(self.input_blocks)))
        outputs = (f"output.{i}" for i in range(len(self.output_blocks)))
        return (*inputs, "middle", *outputs)

    def blocks(self) -> list[nn.Module]:
        """All blocks in the order in which they run."""
        return [*self.input_blocks, self.middle_block, *self.output_blocks]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        features_adapter: Sequence[Tensor] | None = None,
        fs: Tensor | None = None,
    ) -> Tensor:
        """Predict.

        Args:
            x: noisy latents joined with image latents [B, C, T, h, w].
            timesteps: [B].
            context: 77 text tokens, then image tokens: 16 for each frame, or some that all
                frames share [B, L, D].
            features_adapter: maps to add to every third block on the way down, if any.
            fs: frames per second (256: frame stride) [B]; the settings' if None.

        Returns:
            [B, C_out, T, h, w].

        Raises:
            ValueError: too many or too few maps to add.
        """
        added = () if features_adapter is None else features_adapter
        expected = len(self.input_blocks) // _ADAPTER_PERIOD
        if added and len(added) != expected:
            raise ValueError(f"features_adapter: expected {expected} maps, got {len(added)}")
        signals = self._signals(x, timesteps, context, fs)
        hidden, _ = self._run(x, signals, frozenset(), None, added)
        return self._leave(hidden, len(x))

    def tapped(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        fs: Tensor | None,
        taps: frozenset[str],
        prediction: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run as many blocks as the taps and the prediction need.

        Args:
            x: as for `forward`.
            timesteps: as for `forward`.
            context: as for `forward`.
            fs: as for `forward`.
            taps: names out of `tap_names`.
            prediction: whether the output is needed.

        Returns:
            The prediction or None, and tap name -> map [B * T, D, h', w'].
        """
        names = self.tap_names
        last = None if prediction else max((names.index(t) for t in taps), default=-1)
        if last == -1:
            return None, {}
        signals = self._signals(x, timesteps, context, fs)
        hidden, features = self._run(x, signals, taps, last, ())
        return (self._leave(hidden, len(x)) if prediction else None), features

    def _signals(self, x: Tensor, timesteps: Tensor, context: Tensor, fs: Tensor | None) -> Signals:
        num_clips, num_frames = x.shape[0], x.shape[2]
        embedding = self.time_embed(self._sinusoidal(timesteps, x))
        if self.fps_embedding is not None:
            if fs is None:
                fs = timesteps.new_full((num_clips,), self.settings.default_fs)
            embedding = embedding + self.fps_embedding(self._sinusoidal(fs, x))
        words, photo = context[:, :TEXT_TOKENS], context[:, TEXT_TOKENS:]
        if photo.shape[1] == num_frames * IMAGE_TOKENS_PER_FRAME:
            dealt = photo.unflatten(1, (num_frames, -1)).flatten(0, 1)
            context = torch.cat([words.repeat_interleave(num_frames, dim=0), dealt], dim=1)
        else:
            context = context.repeat_interleave(num_frames, dim=0)
        return Signals(
            embedding=embedding.repeat_interleave(num_frames, dim=0),
            context=context,
            num_clips=num_clips,
        )

    def _sinusoidal(self, numbers: Tensor, x: Tensor) -> Tensor:
        return sinusoidal(numbers, self.settings.model_channels).to(x.dtype)

    def _run(
        self,
        x: Tensor,
        signals: Signals,
        taps: frozenset[str],
        last: int | None,
        added: Sequence[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the blocks up to number `last` of `tap_names`, or all of them."""
        features: dict[str, Tensor] = {}
        skipped: list[Tensor] = []
        hidden = x.transpose(1, 2).flatten(0, 1)
        for index, name in enumerate(self.tap_names[: None if last is None else last + 1]):
            if name.startswith("output"):
                hidden = torch.cat([hidden, skipped.pop()], dim=1)
            hidden = self._step(self._block(name), hidden, signals)
            if name in taps:
                features[name] = hidden
            if not name.startswith("input"):
                continue
            if index == 0 and self.init_attn is not None:
                hidden = self._step(self.init_attn, hidden, signals)
            if added and (index + 1) % _ADAPTER_PERIOD == 0:
                hidden = hidden + added[index // _ADAPTER_PERIOD]
            skipped.append(hidden)
        return hidden, features

    def _block(self, name: str) -> nn.Module:
        kind, _, number = name.partition(".")
        if kind == "middle":
            return self.middle_block
        return (self.input_blocks if kind == "input" else self.output_blocks)[int(number)]

    def _step(self, block: nn.Module, hidden: Tensor, signals: Signals) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(hidden, signals)
        return checkpoint(
            block, hidden, signals, use_reentrant=False, preserve_rng_state=self.training
        )

    def _leave(self, hidden: Tensor, num_clips: int) -> Tensor:
        return self.out(hidden).unflatten(0, (num_clips, -1)).transpose(1, 2)


def _embedder(entering: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(entering, leaving), nn.SiLU(), nn.Linear(leaving, leaving))
