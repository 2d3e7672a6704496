"""The family of CogVideoX: a framewise autoencoder and a video transformer."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.embedded.anchor import (
    AnchorOptions,
    anchor_copy_init,
    trainable_positions,
)
from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.denoiser import (
    DenoiserShape,
    Transformer,
    build_denoiser,
    build_scheduler,
    rotary_tables,
)
from anti_i2v_lit.surrogates.embedded.export import export_pipeline
from anti_i2v_lit.surrogates.embedded.family import (
    ClipCondition,
    Denoising,
    Family,
    NoPictureEncoder,
    PictureEncoder,
)
from anti_i2v_lit.surrogates.embedded.frame_autoencoder import (
    AutoencoderShape,
    FrameAutoencoder,
    to_cogvideox,
)
from anti_i2v_lit.surrogates.embedded.text import (
    build_text_encoder,
    build_tokenizer,
    embed_prompts,
)


def initial_denoiser(
    shape: DenoiserShape, *, anchor: AnchorOptions | None, seed: int
) -> Transformer:
    """A denoiser with trainable positions; its weights depend on the arguments alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_denoiser(shape)
    trainable_positions(model)
    if anchor is not None:
        anchor_copy_init(model, anchor)
    return model


class TransformerDenoising(Denoising):
    """The first frame's latent joins the noisy one as channels, with zeros for later frames."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        cosines, sines = rotary_tables(shape)
        tables = {
            "alphas": build_scheduler().alphas_cumprod.float(),  # type: ignore[attr-defined]
            "cosines": cosines,
            "sines": sines,
        }
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings ``[N, 16, 64]`` of the random T5."""
        return embed_prompts(list(prompts), build_tokenizer(), build_text_encoder())

    def withhold(self, condition: ClipCondition, generator: torch.Generator) -> ClipCondition:
        """All of the condition; captions that are empty are so in the clips already."""
        return condition

    def predict(
        self, model: nn.Module, noisy: Tensor, timesteps: Tensor, condition: ClipCondition
    ) -> Tensor:
        """The transformer's v, ``[B, T, C, h, w]``."""
        given = torch.zeros_like(noisy)
        given[:, 0] = condition.first
        return model(
            hidden_states=torch.cat([noisy, given], dim=2),
            encoder_hidden_states=condition.text,
            timestep=timesteps,
            image_rotary_emb=(self.cosines, self.sines),
            return_dict=False,
        )[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerFamily(Family):
    """Models of CogVideoX-5B-I2V's class."""

    autoencoder_shape: AutoencoderShape = dataclasses.field(default_factory=AutoencoderShape)
    denoiser_shape: DenoiserShape = dataclasses.field(default_factory=DenoiserShape)
    anchor: AnchorOptions | None = dataclasses.field(default_factory=AnchorOptions)  # None: usual

    def autoencoder(self) -> FrameAutoencoder:
        """A fresh framewise autoencoder."""
        return FrameAutoencoder(self.autoencoder_shape)

    def picture_encoder(self) -> NoPictureEncoder:
        """None: the photo enters as a latent alone."""
        return NoPictureEncoder()

    def denoiser(self, seed: int) -> nn.Module:
        """A fresh transformer that copies the first frame."""
        return initial_denoiser(self.denoiser_shape, anchor=self.anchor, seed=seed)

    def denoising(self, encoder: PictureEncoder) -> TransformerDenoising:
        """Tables for this transformer."""
        return TransformerDenoising(self.denoiser_shape)

    def export(
        self,
        autoencoder: PictureAutoencoder,
        encoder: PictureEncoder,
        denoiser: nn.Module,
        folder: pathlib.Path,
    ) -> int:
        """Write a diffusers pipeline folder."""
        assert isinstance(autoencoder, FrameAutoencoder)
        return export_pipeline(to_cogvideox(autoencoder), self._plain(denoiser), folder)

    def _plain(self, denoiser: nn.Module) -> Transformer:
        """The same weights in diffusers' own module, whose positions are a buffer."""
        plain = build_denoiser(self.denoiser_shape)
        plain.load_state_dict(denoiser.state_dict())
        return plain.eval()
