"""Attention is made flat: no token of a clip is nearer to one token than to another."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.checks import check_at_least, check_between
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.objectives.features import chosen_taps, denoised_of
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class FlatAttention(Objective):
    """A Vid-Freeze-like term: spatio-temporal attention is pushed toward equal weights.

    Chowdhury et al., "Vid-Freeze", arXiv 2509.23279, eq. 7: `mean over layers l of |A_l|_F^2` is
    minimised, because a clip whose frames all attend to everything alike stands still. Their code
    is not public; what is known of the equation comes from a third party's implementation.

    Vid-Freeze reads the attention weights of the model. Fused attention does not return them and
    every architecture keeps them elsewhere, so this term takes them from the tokens f that every
    surrogate gives after its blocks, as attention without learned projections:

        A = softmax(corr(f, f) / temperature),    loss = mean over taps of mean_i sum_j A_ij^2

    with corr the correlation of two tokens over their channels. The value lies between 1/N (flat,
    N tokens) and 1 (each token attends to one). It is a likeness of Vid-Freeze and not the method:
    a table that names it should say so.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the attention term.

        Attributes:
            weight: signed factor in the total, no unit; positive flattens.
            taps: names of denoiser taps, or shares of the depth from 0 (the first) to 1 (the
                last); empty means all.
            temperature: of the softmax over correlations, no unit; smaller is more pointed.
            max_tokens: tokens compared per clip, evenly spaced if there are more; the cost grows
                with its square.
        """

        weight: float = 1.0
        taps: list[str] = field(default_factory=list)
        temperature: float = 0.1
        max_tokens: int = 256

        def __post_init__(self) -> None:
            """Refuse a softmax that is not one and single tokens."""
            check_between(self.temperature, 1e-3, 1e3, "temperature")
            check_at_least(self.max_tokens, 2, "max_tokens")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The configured denoiser taps or all of them, of the cloak alone.

        Raises:
            ValueError: an unknown tap, or a surrogate without denoiser taps.
        """
        return TapRequest(denoiser=frozenset(self._plan(surrogate)))

    def _plan(self, surrogate: Surrogate) -> tuple[str, ...]:
        known = surrogate.denoiser_taps
        return chosen_taps(self.config.taps, known, known, "denoiser tap")

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        features = denoised_of(cloak).features
        parts = [self._pointedness(features[name]) for name in self._plan(surrogate)]
        return torch.stack(parts).mean(dim=0)

    def _pointedness(self, tokens: Tensor) -> Tensor:
        """Mean over tokens of the sum of squared weights [B], of tokens [B, N, D]."""
        chosen = _evenly_spaced(tokens.float(), self.config.max_tokens)
        unit = F.layer_norm(chosen, chosen.shape[-1:])
        correlation = unit @ unit.transpose(1, 2) / unit.shape[-1]
        weights = (correlation / self.config.temperature).softmax(dim=-1)
        return weights.square().sum(dim=-1).mean(dim=-1)


def _evenly_spaced(tokens: Tensor, count: int) -> Tensor:
    """At most `count` of the tokens [B, N, D], the first and the last among them."""
    number = tokens.shape[1]
    if number <= count:
        return tokens
    places = torch.linspace(0, number - 1, count, device=tokens.device).round().long()
    return tokens[:, places]
