"""Packed references: half the bytes for bfloat16 models, the same bits for all."""

from __future__ import annotations

import torch

from anti_i2v_lit.bench.subjects import jobs_of, loop_of
from anti_i2v_lit.cloaking.packing import is_exact, packed, unpacked
from anti_i2v_lit.settings import Settings, load_settings
from anti_i2v_lit.types import Condition, Denoised, Observation
from tests.conftest import fast_values


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def observation(features: torch.Tensor) -> Observation:
    return Observation(
        views=noise(1, 3, 4, 4),
        condition=Condition(latents=noise(1, 2, 2, 2), features={"e": features}),
        denoised=Denoised(
            prediction=None, target=noise(1, 1, 2, 2, 2), features={"a": features, "b": noise(1, 3)}
        ),
    )


def test_what_fits_is_halved_and_comes_back_bit_for_bit() -> None:
    special = torch.tensor([0.0, -0.0, torch.inf, 1e-40, 3.0e38])
    features = torch.cat([noise(1000).bfloat16().float(), special.bfloat16().float()])
    small = packed(observation(features))
    assert small.condition is not None and small.denoised is not None
    assert small.condition.features["e"].dtype == small.denoised.features["a"].dtype
    assert small.denoised.features["a"].dtype == torch.bfloat16
    assert small.denoised.features["b"].dtype == torch.float32  # does not fit
    assert small.condition.latents.dtype == torch.float32
    back = unpacked(small)
    assert back.condition is not None and back.denoised is not None
    for values in (back.condition.features["e"], back.denoised.features["a"]):
        assert values.dtype == torch.float32
        assert torch.equal(values.view(torch.int32), features.view(torch.int32))
    assert torch.equal(back.denoised.features["b"], noise(1, 3))


def test_not_a_number_is_never_packed_away() -> None:
    assert not is_exact(torch.tensor([1.0, torch.nan]))
    assert not is_exact(torch.tensor([1.0 + 2**-20]))


def pooled_dtypes(settings: Settings) -> set[torch.dtype]:
    loop = loop_of(settings)
    (job,) = jobs_of(settings, loop, 1)
    loop.begin(job)
    (member,) = loop.members.values()
    references = member.entry(job, 0).references.values()
    return {
        values.dtype
        for seen in references
        if seen.denoised is not None
        for values in seen.denoised.features.values()
    }


def test_draws_of_a_bfloat16_model_are_kept_packed(tiny_checkpoint: object) -> None:
    values = fast_values(tiny_checkpoint)  # type: ignore[arg-type]
    wide = load_settings(values=values)
    half = load_settings(values=values, overrides=["surrogates.0.dtype=bfloat16"])
    assert pooled_dtypes(wide) == {torch.float32}
    assert pooled_dtypes(half) == {torch.bfloat16}
