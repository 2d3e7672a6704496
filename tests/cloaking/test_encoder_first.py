"""The condition apart: the same bits as the joint graph, and never both sets of activations."""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from anti_i2v_lit.bench.speed import run_product
from anti_i2v_lit.bench.subjects import jobs_of, loop_of
from anti_i2v_lit.cloaking.encoder_first import encoded_apart
from anti_i2v_lit.settings import Settings
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Condition, Denoised, Draw


@dataclass
class Ledger:
    """Live bytes of saved tensors by who saved them, and the largest sum of both at once."""

    live: dict[str, int] = field(default_factory=lambda: {"encoder": 0, "denoiser": 0})
    most: dict[str, int] = field(default_factory=lambda: {"encoder": 0, "denoiser": 0})
    both: int = 0

    def hooks(self, owner: str) -> saved_tensors_hooks:
        return saved_tensors_hooks(lambda t: Held(self, owner, t), lambda held: held.tensor)

    def add(self, owner: str, size: int) -> None:
        self.live[owner] += size
        self.most[owner] = max(self.most[owner], self.live[owner])
        self.both = max(self.both, min(self.live.values()))


class Held:
    """One saved tensor; it is counted until autograd lets go of it."""

    def __init__(self, ledger: Ledger, owner: str, tensor: Tensor) -> None:
        self.tensor = tensor
        size = 0 if isinstance(tensor, torch.nn.Parameter) else tensor.nbytes
        ledger.add(owner, size)
        weakref.finalize(self, ledger.add, owner, -size)


def pass_through(
    surrogate: Surrogate, apart: bool, ledger: Ledger
) -> tuple[Tensor, Condition, Denoised]:
    generator = torch.Generator().manual_seed(0)
    size = surrogate.view_size
    views = torch.rand(1, 3, *size, generator=generator).requires_grad_()
    clips = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    draw: Draw = surrogate.draw(surrogate.encode_clip(clips), [generator], ["a person"])
    taps = frozenset(surrogate.encoder_taps)

    def encode(pixels: Tensor) -> Condition:
        with ledger.hooks("encoder"):
            return surrogate.condition(pixels, taps, draw)

    condition = encoded_apart(encode, views) if apart else encode(views)
    with ledger.hooks("denoiser"):
        denoised = surrogate.denoise(
            condition, draw, frozenset(surrogate.denoiser_taps), prediction=True
        )
        assert denoised.prediction is not None
        terms = [denoised.prediction, *denoised.features.values(), *condition.features.values()]
        loss = torch.stack([term.square().mean() for term in terms]).sum()
    (gradient,) = torch.autograd.grad(loss, views)
    return gradient, condition, denoised


@pytest.mark.parametrize("name", SURROGATES.names())
def test_values_and_gradients_are_the_same_bits(name: str) -> None:
    surrogate = SURROGATES.load(name).tiny()
    joint, apart = (pass_through(surrogate, kind, Ledger()) for kind in (False, True))
    assert torch.equal(joint[0], apart[0]) and joint[0].abs().max() > 0
    assert torch.equal(joint[1].latents, apart[1].latents)
    assert joint[2].prediction is not None and apart[2].prediction is not None
    assert torch.equal(joint[2].prediction, apart[2].prediction)


@pytest.mark.parametrize("name", SURROGATES.names())
def test_activations_of_encoder_and_denoiser_never_coexist(name: str) -> None:
    surrogate = SURROGATES.load(name).tiny()
    joint, apart = Ledger(), Ledger()
    pass_through(surrogate, False, joint)
    pass_through(surrogate, True, apart)
    for ledger in (joint, apart):  # both did all the work, and let go of everything
        assert ledger.live == {"encoder": 0, "denoiser": 0}
    assert apart.most["denoiser"] == joint.most["denoiser"] > 0
    assert apart.most["encoder"] == pytest.approx(joint.most["encoder"], rel=0.05)
    assert joint.both > 0.9 * min(joint.most.values())
    # What remains is the condition itself, which the denoiser reads and the terms compare.
    assert apart.both < 0.05 * joint.both


def test_a_run_with_it_writes_the_same_bytes(fast_settings: Settings) -> None:
    cloaks = []
    for kind in (False, True):
        attack = dataclasses.replace(fast_settings.attack, encoder_first=kind)
        settings = dataclasses.replace(fast_settings, attack=attack)
        assert settings.digest() == fast_settings.digest()
        loop = loop_of(settings)
        (job,) = jobs_of(settings, loop, 1)
        loop.begin(job)
        run_product(loop, [job], 3)
        cloaks.append(loop.cloaked_canvas(job).detach())
    assert torch.equal(*cloaks)
    assert not torch.equal(cloaks[0], job.canvas)
