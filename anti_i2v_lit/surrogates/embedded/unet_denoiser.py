"""The denoiser of the U-Net family: U-Net and Resampler, trained together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from anti_i2v_lit.surrogates.dynamicrafter.clip import TextEmbedder
from anti_i2v_lit.surrogates.dynamicrafter.model import Schedule
from anti_i2v_lit.surrogates.dynamicrafter.resampler import Resampler
from anti_i2v_lit.surrogates.dynamicrafter.settings import ModelSettings
from anti_i2v_lit.surrogates.dynamicrafter.unet import UNet
from anti_i2v_lit.surrogates.embedded.family import ClipCondition, Denoising, PictureEncoder
from anti_i2v_lit.surrogates.embedded.text import build_tokenizer

_PLAIN = [SDPBackend.MATH]
_ALL = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Withholding:
    """How often a part of the condition is taken away in training; shares of clips, [0, 1]."""

    latent: float = 0.3  # the photo's latent becomes zero: only its image tokens say who it is
    picture: float = 0.05  # the image tokens become those of a grey picture
    text: float = 0.05  # the prompt becomes empty, besides captions that are empty anyway

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        values = dataclasses.astuple(self)
        if min(values) < 0 or max(values) > 1:
            raise ValueError(f"{self} arrived; expected shares in [0, 1]; correct them.")


class UNetDenoiser(nn.Module):
    """U-Net and Resampler under the names that a checkpoint gives them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.diffusion_model = UNet(**settings.unet)
        self.image_proj_model = Resampler(**settings.resampler)

    def forward(self, joined: Tensor, timesteps: Tensor, text: Tensor, picture: Tensor) -> Tensor:
        """The prediction ``[B, C, T, h, w]``.

        Args:
            joined: Noisy clip and the photo's latent beside each frame, ``[B, 2C, T, h, w]``.
            timesteps: ``[B]``.
            text: Embedded prompts ``[B, 77, D]``.
            picture: Image tokens ``[B, N, W]``.
        """
        context = torch.cat([text, self.image_proj_model(picture).to(text.dtype)], dim=1)
        return self.diffusion_model(joined, timesteps, context)


@torch.no_grad()
def wake(model: UNet, *, gate: float, attention_gate: float) -> None:
    """Give layers that start at zero a share of the usual initialisation.

    Zeros make every block start as its shortcut, which suits long training; in a short one they
    cost steps, since nothing before such a layer learns until it has moved. Prompt and image
    tokens enter behind such layers alone: with a small gate there they stay without effect.

    Args:
        model: Fresh.
        gate: Share of the usual deviation in residual blocks.
        attention_gate: The same in transformers.
    """
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            continue
        if not module.weight.any():
            share = attention_gate if name.endswith("proj_out") else gate
            nn.init.normal_(module.weight, std=share * module.weight[0].numel() ** -0.5)


@torch.no_grad()
def anchor_copy_init(model: UNet, *, signal: float = 0.5) -> None:
    """Initialise a U-Net so that it predicts the v of a clip that shows the photo all the time.

    That is ``(s x - p) / sigma`` with noisy latent x, photo's latent p and signal s. The first
    convolution carries both on; they reach the last block by its skip, whose shortcut subtracts
    them with a constant instead of s. Each latent channel and its opposite are one group of the
    last normalisation, which brings the difference to the unit scale of v; behind the activation,
    ``silu(m) - silu(-m) = m``. What depends on timestep, prompt and frame is left to training.

    Args:
        model: Fresh; twice as many channels in its first level as groups, which are at least as
            many as latent channels.
        signal: The constant.

    Raises:
        ValueError: Other sizes.
    """
    # Type checkers see the layers of a container as modules of any kind.
    layers: Any = model
    enter, leave = layers.input_blocks[0][0], layers.out[2]
    shortcut, normalise = layers.output_blocks[-1][0].skip_connection, layers.out[0]
    latent, width = leave.out_channels, enter.out_channels
    if width != 2 * normalise.num_groups or latent > normalise.num_groups:
        raise ValueError(
            f"{width} channels, {normalise.num_groups} groups and {latent} latent channels "
            "arrived; expected two channels a group and a group for each latent channel."
        )
    eye = torch.eye(latent)
    enter.weight[: 2 * latent] = 0.0
    enter.bias[: 2 * latent] = 0.0
    enter.weight[: 2 * latent, :, 1, 1] = torch.eye(2 * latent)
    carried = shortcut.in_channels - width
    shortcut.weight[: 2 * latent] = 0.0
    shortcut.bias[: 2 * latent] = 0.0
    for sign, rows in ((1.0, slice(0, 2 * latent, 2)), (-1.0, slice(1, 2 * latent, 2))):
        shortcut.weight[rows, carried : carried + latent, 0, 0] = sign * signal * eye
        shortcut.weight[rows, carried + latent : carried + 2 * latent, 0, 0] = -sign * eye
        leave.weight[:, rows] = 0.0
        leave.weight[:, rows, 1, 1] = sign * eye


class UNetDenoising(Denoising):
    """The photo's latent joins every frame; its image tokens join the prompt's.

    Args:
        settings: Of the model.
        text: The frozen text embedder.
        encoder: The trained image encoder.
        withholding: What is taken away in training.
    """

    def __init__(
        self,
        settings: ModelSettings,
        text: TextEmbedder,
        encoder: PictureEncoder,
        withholding: Withholding,
    ) -> None:
        super().__init__()
        self._length, self._withholding = settings.clip.context_length, withholding
        # A list hides the frozen network from parameters and checkpoints.
        self._frozen_text = [text]
        side = 8 * settings.latent_size[0]
        with torch.no_grad():
            grey = encoder.tokens(torch.zeros(1, 3, side, side))
        self._grey, self._empty = grey, self.embed_prompts([""])
        self.register_buffer("alphas", Schedule(settings).alphas_cumprod, persistent=False)

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings ``[N, 77, D]`` of the frozen text tower."""
        tokens = build_tokenizer()(
            list(prompts),
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )
        return self._frozen_text[0](tokens.input_ids)[0]

    def withhold(self, condition: ClipCondition, generator: torch.Generator) -> ClipCondition:
        """Take each part away from its share of the clips, independently."""
        shares, count = self._withholding, len(condition.first)
        latent, picture, text = torch.rand(3, count, generator=generator)
        return ClipCondition(
            first=torch.where(
                (latent < shares.latent)[:, None, None, None],
                torch.zeros_like(condition.first),
                condition.first,
            ),
            text=torch.where(
                (text < shares.text)[:, None, None],
                self._empty.expand_as(condition.text),
                condition.text,
            ),
            picture=torch.where(
                (picture < shares.picture)[:, None, None],
                self._grey.to(condition.picture).expand_as(condition.picture),
                condition.picture,
            ),
        )

    def predict(
        self, model: nn.Module, noisy: Tensor, timesteps: Tensor, condition: ClipCondition
    ) -> Tensor:
        """The U-Net's v, ``[B, T, C, h, w]``."""
        photo = condition.first[:, None].expand_as(noisy)
        joined = torch.cat([noisy, photo], dim=2).transpose(1, 2)
        # Over a handful of frames the fused kernels of the CPU are slower than plain products.
        kernels = _PLAIN if noisy.device.type == "cpu" else _ALL
        with sdpa_kernel(kernels):
            output = model(joined, timesteps, condition.text, condition.picture)
        return output.transpose(1, 2)
