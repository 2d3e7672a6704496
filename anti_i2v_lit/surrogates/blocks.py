"""What all adapters do with the blocks of a network: stop early, recompute, compile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from anti_i2v_lit.checks import check_in

COMPILE = ("none", "blocks")


def check_compile(value: str) -> None:
    """Refuse a `compile` setting that no adapter knows.

    Raises:
        ValueError: naming the known ones.
    """
    check_in(value, COMPILE, "compile")


def needed_depth(names: Sequence[str], taps: Collection[str], prediction: bool) -> int:
    """Number of blocks that have to run.

    Args:
        names: taps of all blocks, shallow to deep.
        taps: those that are asked for.
        prediction: whether the output is, for which all blocks run.
    """
    if prediction:
        return len(names)
    return max((names.index(tap) + 1 for tap in taps), default=0)


def recomputed(part: Callable[..., Any], checkpointing: bool, *inputs: Any) -> Any:
    """Run a part of a network; its activations are made again in the backward pass if asked for.

    Diffusers' own switch does nothing in eval mode. Frozen networks draw no random numbers, so no
    random state is kept.

    Args:
        part: a module or a function; runs twice.
        checkpointing: whether to recompute; without gradients there is nothing to recompute.
        inputs: of `part`.
    """
    if not (checkpointing and torch.is_grad_enabled()):
        return part(*inputs)
    return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
