"""The few values that travel between rooms, and the legend of tensor shapes.

Legend: B photos in a batch, H W pixels of a canvas or view, F frames, C latent channels,
h w latent rows and columns, N tokens, D feature channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a surrogate derives from the photo: the path that a cloak can act on.

    Attributes:
        latents: image latent [B, C, h, w], already scaled as the denoiser expects it.
        features: encoder-tap name -> feature map [B, D, h', w'].
        image_embedding: semantic embedding [B, N, D] of models that have one, else None.
    """

    latents: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    image_embedding: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """One call of a denoiser.

    Attributes:
        prediction: raw network output [B, F, C, h, w], or None if no term needed it.
        target: what the training loss compares it with (epsilon, v or flow), same shape.
        features: denoiser-tap name -> video tokens [B, N, D] (text tokens removed).
    """

    prediction: Tensor | None
    target: Tensor
    features: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One random draw of the training loss: everything but the photo.

    Attributes:
        clip_latents: latents of the reference clip [B, F, C, h, w].
        noise: standard normal, same shape.
        timesteps: integer timesteps [B] in the surrogate's own schedule.
        prompts: one text per photo.
    """

    clip_latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All that objectives may look at, for one image at one draw.

    Attributes:
        views: the framed image [B, 3, H, W] in [0, 1].
        condition: its condition; None where only pixels were asked for.
        denoised: the denoiser's answer; None where no denoiser tap was asked for.
    """

    views: Tensor
    condition: Condition | None = None
    denoised: Denoised | None = None


@dataclass(frozen=True, kw_only=True)
class TapRequest:
    """What a term needs to see; requests of several terms are merged with `|`.

    Attributes:
        denoiser: names of denoiser taps.
        encoder: names of VAE-encoder taps.
        condition: the image latent (or embedding) itself is needed.
        prediction: the denoiser's output is needed, so all its blocks must run.
        references: which other images must be observed at the same draw: "clean", "anchor".
    """

    denoiser: frozenset[str] = frozenset()
    encoder: frozenset[str] = frozenset()
    condition: bool = False
    prediction: bool = False
    references: frozenset[str] = frozenset()

    def __or__(self, other: TapRequest) -> TapRequest:
        """Union of two requests."""
        return TapRequest(
            denoiser=self.denoiser | other.denoiser,
            encoder=self.encoder | other.encoder,
            condition=self.condition or other.condition,
            prediction=self.prediction or other.prediction,
            references=self.references | other.references,
        )

    @property
    def needs_denoiser(self) -> bool:
        """Whether the denoiser has to run at all."""
        return bool(self.denoiser) or self.prediction

    @property
    def needs_condition(self) -> bool:
        """Whether the encoder has to run at all."""
        return self.condition or bool(self.encoder) or self.needs_denoiser
