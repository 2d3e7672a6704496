"""The gate lets nothing pass that it cannot compare."""

from __future__ import annotations

import math

import pytest

from anti_i2v_lit.cloaking.gate import GateConfig

GOOD = {"psnr": 40.0, "ssim": 0.99, "ciede2000": 1.0, "lpips": 0.1, "max_change_8bit": 9.0}
STRICT = GateConfig(max_change_8bit=20.0)


def test_good_figures_pass() -> None:
    assert STRICT.complaints(GOOD) == []
    assert STRICT.complaints({**GOOD, "psnr": math.inf}) == []


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", [math.nan, None])
def test_a_figure_that_is_no_number_breaks_its_limit(name: str, value: float | None) -> None:
    (complaint,) = STRICT.complaints({**GOOD, name: value})
    assert complaint.startswith(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("psnr", 20), ("ssim", 0.5), ("ciede2000", 9), ("lpips", 0.7), ("max_change_8bit", 21)],
)
def test_a_broken_limit_is_named(name: str, value: float) -> None:
    (complaint,) = STRICT.complaints({**GOOD, name: value})
    assert name in complaint and "gate." in complaint
