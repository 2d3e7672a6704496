"""The family of DynamiCrafter: a first stage, an image tower and a latent video U-Net."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import torch
from torch import nn

from anti_i2v_lit.surrogates.dynamicrafter.clip import ClipSettings, TextEmbedder, TowerSettings
from anti_i2v_lit.surrogates.dynamicrafter.settings import ModelSettings
from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.export import export_dynamicrafter
from anti_i2v_lit.surrogates.embedded.family import Family, PictureEncoder
from anti_i2v_lit.surrogates.embedded.ldm_autoencoder import LdmAutoencoder, LdmShape
from anti_i2v_lit.surrogates.embedded.picture_encoder import ClipPictureEncoder
from anti_i2v_lit.surrogates.embedded.text import VOCABULARY, build_tokenizer
from anti_i2v_lit.surrogates.embedded.unet_denoiser import (
    UNetDenoiser,
    UNetDenoising,
    Withholding,
    anchor_copy_init,
    wake,
)
from anti_i2v_lit.surrogates.parameterisation import Parameterisation


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetShape:
    """Sizes of U-Net, Resampler and embedders."""

    channels: int = 64  # channels of the first level
    multiples: tuple[int, ...] = (1, 2)  # channels of each level, multiples of ``channels``
    attended: tuple[int, ...] = (1, 2)  # halvings at which frames attend, as factors: 1, 2, 4 ...
    head_channels: int = 16  # channels of an attention head
    context: int = 64  # channels of text and image tokens; width of the text tower
    frames: int = 5  # frames of a clip
    image_size: int = 64  # side of the photo as the image tower sees it, pixels
    patch_size: int = 8  # side of its patches, pixels
    image_width: int = 128  # channels of its tokens
    image_layers: int = 4  # its blocks
    rate: int = 8  # the frame rate that the model is told, frames per second

    def __post_init__(self) -> None:
        """Refuse sizes that do not tile and channels that do not group."""
        if self.image_size % self.patch_size or self.channels % 32:
            raise ValueError(
                f"image_size={self.image_size}, patch_size={self.patch_size}, channels="
                f"{self.channels} arrived; expected whole patches and a multiple of 32 channels."
            )

    def clip(self) -> ClipSettings:
        """Sizes of the two embedders."""
        return ClipSettings(
            embed_dim=self.context,
            image=TowerSettings(
                width=self.image_width, layers=self.image_layers, heads=self.image_width // 32
            ),
            text=TowerSettings(width=self.context, layers=2, heads=4),
            image_size=self.image_size,
            patch_size=self.patch_size,
            vocab_size=len(VOCABULARY) + 3,
        )

    def unet(self, latent_channels: int) -> dict[str, Any]:
        """Keywords of ``UNet``, under their published names."""
        return {
            "in_channels": 2 * latent_channels,
            "out_channels": latent_channels,
            "model_channels": self.channels,
            "attention_resolutions": list(self.attended),
            "num_res_blocks": 1,
            "channel_mult": list(self.multiples),
            "dropout": 0.0,
            "num_head_channels": self.head_channels,
            "transformer_depth": 1,
            "context_dim": self.context,
            "use_linear": True,
            "temporal_conv": True,
            "temporal_attention": True,
            "temporal_selfatt_only": True,
            "use_relative_position": False,
            "use_causal_attention": False,
            "temporal_length": self.frames,
            "addition_attention": True,
            "image_cross_attention": True,
            "default_fs": self.rate,
            "fs_condition": True,
        }

    def resampler(self) -> dict[str, Any]:
        """Keywords of ``Resampler``, under their published names."""
        return {
            "dim": 64,
            "depth": 2,
            "dim_head": 16,
            "heads": 4,
            "num_queries": 16,
            "embedding_dim": self.image_width,
            "output_dim": self.context,
            "ff_mult": 4,
            "video_length": self.frames,
        }


@torch.no_grad()
def let_padding_tell(tower: TextEmbedder) -> None:
    """Make the padding behind a prompt carry the prompt, in a random tower.

    Seven words stand before seventy paddings, and attention starts even: what it reads is the
    paddings' mean, to which another prompt changes little (0.13 of its deviation over entries). A
    padding that has nothing of its own says what causal attention took from the words (0.39).

    Args:
        tower: Fresh.
    """
    model: Any = tower.model
    model.token_embedding.weight[build_tokenizer().pad_token_id] = 0.0
    model.positional_embedding *= 0.1
    for block in model.transformer.resblocks:
        block.attn.out_proj.weight *= 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetFamily(Family):
    """Models of DynamiCrafter's class."""

    autoencoder_shape: LdmShape = dataclasses.field(default_factory=LdmShape)
    unet_shape: UNetShape = dataclasses.field(default_factory=UNetShape)
    withholding: Withholding = dataclasses.field(default_factory=Withholding)
    gate: float = 0.1  # deviation of residual layers published to start at zero, share of the usual
    attention_gate: float = 0.3  # the same of transformers, through which prompt and tokens enter
    text_seed: int = 0  # seed of the text tower, which is random and stays so

    def settings(self) -> ModelSettings:
        """The whole model's, as its configuration file says them."""
        first_stage, shape = self.autoencoder_shape, self.unet_shape
        side = first_stage.sample_size // first_stage.stride
        return ModelSettings(
            unet=shape.unet(first_stage.latent_channels),
            first_stage={**first_stage.settings(), "embed_dim": first_stage.latent_channels},
            resampler=shape.resampler(),
            clip=shape.clip(),
            kind=Parameterisation.VELOCITY,
            zero_snr=True,
            scale_factor=1.0,
            latent_size=(side, side),
            frame_by_frame=True,
        )

    def autoencoder(self) -> LdmAutoencoder:
        """A fresh first stage that passes coarse pictures through."""
        return LdmAutoencoder(self.autoencoder_shape)

    def picture_encoder(self) -> ClipPictureEncoder:
        """A fresh image tower."""
        return ClipPictureEncoder(self.unet_shape.clip())

    def text_embedder(self) -> TextEmbedder:
        """The text tower, random and frozen; it depends on ``text_seed`` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.text_seed)
            tower = TextEmbedder(self.unet_shape.clip())
        let_padding_tell(tower)
        return tower.eval().requires_grad_(False)

    def denoiser(self, seed: int) -> UNetDenoiser:
        """A fresh U-Net and Resampler; every frame starts as a copy of the photo.

        In eval mode, which trains as well but for the dropout over time, whose random numbers
        would make a step depend on more than its seed and number.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = UNetDenoiser(self.settings())
            wake(model.diffusion_model, gate=self.gate, attention_gate=self.attention_gate)
        anchor_copy_init(model.diffusion_model)
        return model.eval()

    def denoising(self, encoder: PictureEncoder) -> UNetDenoising:
        """Conditions by latents, image tokens and prompt."""
        return UNetDenoising(self.settings(), self.text_embedder(), encoder, self.withholding)

    def export(
        self,
        autoencoder: PictureAutoencoder,
        encoder: PictureEncoder,
        denoiser: nn.Module,
        folder: pathlib.Path,
    ) -> int:
        """Write ``model.safetensors``, ``config.yaml`` and the tokenizer."""
        assert isinstance(autoencoder, LdmAutoencoder)
        assert isinstance(encoder, ClipPictureEncoder)
        assert isinstance(denoiser, UNetDenoiser)
        parts: dict[str, nn.Module] = {
            "model.diffusion_model.": denoiser.diffusion_model,
            "image_proj_model.": denoiser.image_proj_model,
            "first_stage_model.": autoencoder.first_stage,
            "embedder.": encoder.embedder,
            "cond_stage_model.": self.text_embedder(),
        }
        return export_dynamicrafter(self.settings(), parts, folder)
