"""The photo's condition with a graph of its own: encoder and denoiser never share the memory.

The photo is encoded without a graph; the denoiser's gradient is taken down to the image latent
(image embedding, encoder taps), while its stored activations are released one operation after the
other. Only then is the photo encoded again, with a graph, and the gradient carried on to the
pixels in a backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from anti_i2v_lit.types import Condition

Encode = Callable[[Tensor], Condition]


def encoded_apart(encode: Encode, views: Tensor) -> Condition:
    """`encode(views)`, whose activations are made when its gradient is wanted, not before.

    Values and gradients are those of `encode` bit for bit, at the cost of encoding once more.
    Autograd runs operations in the reverse order of their making, so everything made after the
    condition, the denoiser above all, is done and released before the photo is encoded again.

    Args:
        encode: deterministic; gives the same values whenever it is called.
        views: [B, 3, H, W].
    """
    layout: list[Condition] = []
    tensors = _Apart.apply(encode, layout, views)
    return _rebuilt(layout[0], tensors)


class _Apart(torch.autograd.Function):
    """Forward: encode without a graph. Backward: encode with one, and go through it."""

    @staticmethod
    def forward(ctx: Any, encode: Encode, layout: list[Condition], views: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.encode = encode
        ctx.save_for_backward(views)
        condition = encode(views)
        layout.append(condition)
        return _flat(condition)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None, Tensor | None]:
        (views,) = ctx.saved_tensors
        if not ctx.needs_input_grad[2]:
            return None, None, None
        with torch.enable_grad():
            pixels = views.detach().requires_grad_()
            outputs = _flat(ctx.encode(pixels))
        wanted = [
            (output, gradient)
            for output, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None and output.requires_grad
        ]
        if not wanted:
            return None, None, None
        heads, given = zip(*wanted, strict=True)
        (gradient,) = torch.autograd.grad(heads, pixels, given)
        return None, None, gradient


def _flat(condition: Condition) -> tuple[Tensor, ...]:
    embedding = condition.image_embedding
    semantic = () if embedding is None else (embedding,)
    return (condition.latents, *semantic, *condition.features.values())


def _rebuilt(layout: Condition, tensors: tuple[Tensor, ...]) -> Condition:
    latents, *rest = tensors
    embedding = None if layout.image_embedding is None else rest.pop(0)
    return Condition(
        latents=latents,
        image_embedding=embedding,
        features=dict(zip(layout.features, rest, strict=True)),
    )
