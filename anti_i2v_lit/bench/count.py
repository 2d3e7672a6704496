"""Memory and operations of one step of a model that is not there: shapes on the meta device.

Counted are weights, every tensor that operations make (from its making to its release), and an
allowance for libraries' workspaces. Not counted: the CUDA context (about 0.5 GB, outside of the
allocator), fragmentation, and what kernels allocate inside themselves beyond the allowance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from anti_i2v_lit.bench.meter import Meter
from anti_i2v_lit.cloaking.draws import split
from anti_i2v_lit.cloaking.encoder_first import encoded_apart
from anti_i2v_lit.cloaking.packing import packed, unpacked
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Draw, Observation, TapRequest

CLIP, REFERENCES = "clip, once per draw", "references, once per draw"
ENCODE, DENOISE = "photo encoded", "denoiser forward"
DENOISE_BACK, ENCODE_BACK = "denoiser backward", "encoder repeated and backward"
# cuBLAS keeps this much per handle on current GPUs; forward and backward have one each.
_CUBLAS_BYTES = 2 * 32 * 2**20
_FLASH_WIDTH = 256  # widest head of flash attention


@dataclass(frozen=True, kw_only=True)
class Count:
    """Bytes and operations of one step with one photo in flight.

    Attributes:
        weights: network -> bytes.
        pool: bytes of a photo's draws: clip latents, noise and reference features.
        phases: phase -> largest sum of live tensors, bytes, the pool left out.
        workspace: allowance for cuBLAS, and for cuDNN copies of the largest convolution.
        flops: phase -> operations without recomputation.
        recomputed_flops: operations that activation checkpoints and a repeated encoder add.
    """

    weights: Mapping[str, int]
    pool: int
    phases: Mapping[str, int]
    workspace: int
    flops: Mapping[str, int]
    recomputed_flops: int

    @property
    def peak(self) -> int:
        """All of it at the worst moment, bytes."""
        return sum(self.weights.values()) + self.pool + max(self.phases.values()) + self.workspace


def count_step(
    surrogate: Surrogate,
    objectives: Sequence[Objective],
    *,
    num_draws: int,
    encoder_first: bool,
) -> Count:
    """Count one step of the attack on a surrogate on the meta device.

    Args:
        surrogate: with weights on the meta device.
        objectives: terms of the loss.
        num_draws: distinct draws per photo that are kept.
        encoder_first: whether the photo is encoded apart from the denoiser.
    """
    request = TapRequest()
    for objective in objectives:
        request = request | objective.taps(surrogate)
    meter = Meter()
    with _fused_attention(), meter:
        draw = _drawn(surrogate, meter)
        before = meter.live - _bytes_of(draw)
        references = _references(surrogate, draw, request, meter)
        entry = meter.live - before
        step = _Step(surrogate, request, meter, encoder_first)
        step.run(draw, references, objectives)
    return Count(
        weights=weight_bytes(surrogate),
        pool=(num_draws - 1) * entry,
        phases={name: peak for name, peak in meter.peaks.items() if peak},
        workspace=_CUBLAS_BYTES + meter.largest_convolution,
        flops=dict(meter.flops),
        recomputed_flops=meter.total_recomputed_flops,
    )


def weight_bytes(surrogate: Surrogate) -> dict[str, int]:
    """Network -> bytes of its parameters and buffers, shared ones once."""
    found = {}
    for module in surrogate.modules:
        tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
        found[type(module).__name__] = sum(t.nbytes for t in tensors.values())
    return found


def _bytes_of(draw: Draw) -> int:
    return draw.clip_latents.nbytes + draw.noise.nbytes


@torch.no_grad()
def _drawn(surrogate: Surrogate, meter: Meter) -> Draw:
    meter.enter(CLIP)
    clips = torch.empty(1, surrogate.num_frames, 3, *surrogate.view_size, device=surrogate.device)
    # The public methods look at values, and there are none here.
    latents = surrogate._encode_clip(clips)
    return surrogate.draw(latents, [torch.Generator().manual_seed(0)], ["a person is talking"])


@torch.no_grad()
def _references(
    surrogate: Surrogate, draw: Draw, request: TapRequest, meter: Meter
) -> dict[str, Observation]:
    meter.enter(REFERENCES)
    found = {}
    for name in sorted(request.references):
        views = torch.empty(1, 3, *surrogate.view_size, device=surrogate.device)
        condition = _encoded(surrogate, views, request)
        seen = split(_observation(surrogate, views, condition, draw, request), 0)
        # There are no values to look at: what a model of half precision makes, fits.
        found[name] = packed(seen, lambda _: _is_half(surrogate))
    return found


def _encoded(surrogate: Surrogate, views: Tensor, request: TapRequest) -> Condition:
    """The condition; the public method looks at values."""
    return surrogate._encoded(views, request.encoder, None, embedding=request.needs_denoiser)


def _is_half(surrogate: Surrogate) -> bool:
    return next(surrogate.modules[0].parameters()).dtype == torch.bfloat16


def _observation(
    surrogate: Surrogate, views: Tensor, condition: Condition, draw: Draw, request: TapRequest
) -> Observation:
    denoised = None
    if request.needs_denoiser:
        denoised = surrogate._denoise(condition, draw, request.denoiser, request.prediction)
    return Observation(views=views, condition=condition, denoised=denoised)


class _Step:
    """Forward and backward of one step, phase by phase."""

    def __init__(
        self, surrogate: Surrogate, request: TapRequest, meter: Meter, encoder_first: bool
    ) -> None:
        self.surrogate, self.request, self.meter = surrogate, request, meter
        self.encoder_first = encoder_first
        self._phase = ENCODE

    def run(
        self, draw: Draw, references: dict[str, Observation], objectives: Sequence[Objective]
    ) -> None:
        surrogate = self.surrogate
        views = torch.empty(1, 3, *surrogate.view_size, device=surrogate.device)
        views.requires_grad_()

        def encode(pixels: Tensor) -> Condition:
            self.meter.enter(self._phase)
            return _encoded(surrogate, pixels, self.request)

        condition = encoded_apart(encode, views) if self.encoder_first else encode(views)
        self.meter.enter(DENOISE)
        cloak = _observation(surrogate, views, condition, draw, self.request)
        wide = {name: unpacked(seen) for name, seen in references.items()}
        losses = [o.weight * o._loss(surrogate, cloak, wide) for o in objectives]
        total = torch.stack(losses).sum()
        # Joint backward passes cannot be told apart by phase: theirs is the denoiser's.
        self._phase = ENCODE_BACK
        self.meter.enter(DENOISE_BACK)
        torch.autograd.grad(total, views)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as a GPU runs it; the meta device would write out its whole matrix.

    The function is replaced, because a function mode is off inside `torch.autograd.grad`, where
    checkpoints run it again.
    """
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if query.ndim == 3:
        mask = None if attn_mask is None else attn_mask[:, None]
        q, k, v = query[:, None], key[:, None], value[:, None]
        return _fused(q, k, v, mask, dropout_p, is_causal, scale, enable_gqa)[:, 0]
    half = query.dtype in {torch.bfloat16, torch.float16}
    if attn_mask is None and half and query.shape[-1] <= _FLASH_WIDTH:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    bias = None
    if attn_mask is not None:
        shape = (*query.shape[:-1], key.shape[-2])
        bias = attn_mask.to(query.dtype).expand(shape)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    needs_gradient = torch.is_grad_enabled()
    return efficient(query, key, value, bias, needs_gradient, dropout_p, is_causal, scale=scale)[0]
