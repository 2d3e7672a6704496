"""STDiT3 as a loop over blocks that stops after the deepest one needed; taps are return values."""

from __future__ import annotations

from torch import Tensor, nn

from anti_i2v_lit.surrogates.blocks import needed_depth, recomputed
from anti_i2v_lit.surrogates.open_sora.stdit3 import STDiT3


class TappedSTDiT3(nn.Module):
    """The denoiser with its taps.

    Args:
        model: a loaded STDiT3.
        checkpointing: recompute each block in the backward pass instead of storing it, also in
            eval mode and with frozen weights.
    """

    def __init__(self, model: STDiT3, checkpointing: bool) -> None:
        super().__init__()
        self.model = model
        self.checkpointing = checkpointing

    @property
    def tap_names(self) -> tuple[str, ...]:
        """`spatial.0`, `temporal.0`, `spatial.1` ...: two per pair of blocks, shallow to deep."""
        pairs = range(len(self.model.spatial_blocks))
        return tuple(f"{kind}.{i}" for i in pairs for kind in ("spatial", "temporal"))

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        caption: Tensor,
        valid_words: Tensor,
        noisy_frames: Tensor,
        fps: Tensor,
        size: Tensor,
        taps: frozenset[str],
        prediction: bool,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run as many blocks as the taps and the prediction need.

        Args:
            latents: condition frames and noisy frames [B, C, F, h, w].
            timesteps: [B], in [0, 1000].
            caption: text-encoder states [B, 1, L, D_text].
            valid_words: bool [B, L].
            noisy_frames: bool [B, F], False for condition frames.
            fps: frames per second [B].
            size: height and width of the clip in pixels [2]; on the CPU it costs no wait.
            taps: names out of `tap_names`.
            prediction: whether the output is needed.

        Returns:
            The velocity [B, C, F, h, w], float32, or None, and tap name -> tokens [B, N, D].
        """
        names = self.tap_names
        depth = needed_depth(names, taps, prediction)
        if depth == 0:
            return None, {}
        model = self.model
        start = model.start(
            latents, timesteps, caption, valid_words, noisy_frames, fps, size[:1], size[1:]
        )
        tokens, features = start.tokens, {}
        for name, block in zip(names[:depth], model.blocks()[:depth], strict=True):
            tokens = recomputed(block, self.checkpointing, tokens, start.context)
            if name in taps:
                features[name] = tokens
        if not prediction:
            return None, features
        return model.finish(tokens, start)[:, : model.in_channels], features
