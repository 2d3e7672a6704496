"""Expectation over transforms: what may be drawn, and how hard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from anti_i2v_lit.cloaking.transforms import DrawnTransform, build_transforms, transform_models


class Recorder:
    """A purification that keeps the severities it is called with."""

    def __init__(self) -> None:
        self.severities: list[float] = []
        self.purify: Callable = lambda photo, severity, _: self.severities.append(severity) or photo


def test_severities_spread_over_their_range() -> None:
    recorder = Recorder()
    drawn = DrawnTransform(purification=recorder, severity=0.4)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        drawn.apply(torch.zeros(1, 3, 4, 4), generator)
    found = torch.tensor(recorder.severities)
    assert found.min() > 0 and found.max() <= 0.4
    assert found.mean().item() == pytest.approx(0.2, abs=0.02)
    assert found.std().item() == pytest.approx(0.4 / 12**0.5, abs=0.01)


def test_nodes_become_transforms_with_their_own_fields() -> None:
    blur, jpeg = build_transforms(
        [{"name": "blur", "largest_sigma_px": 2.0, "severity": 1.0}, {"name": "jpeg"}]
    )
    assert blur.severity == 1.0 and jpeg.severity == 0.5
    assert blur.purification.config.largest_sigma_px == 2.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "blurr"}, "Did you mean 'blur'"),
        ({"name": "blur", "severity": 1.5}, "severity must be between 0 and 1"),
        ({"name": "blur", "sigma": 1.0}, "sigma"),
    ],
)
def test_nonsense_is_refused(node: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_transforms([node])


def test_a_transform_without_a_gradient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from anti_i2v_lit.purifications.blur import GaussianBlur

    monkeypatch.setattr(GaussianBlur, "is_differentiable", property(lambda self: False))
    with pytest.raises(ValueError, match="has no gradient"):
        build_transforms([{"name": "blur"}])


def test_the_models_behind_transforms_are_named_as_surrogates_are() -> None:
    nodes = [
        {"name": "vae"},  # its default is the packaged U-Net's autoencoder
        {"name": "vae", "model": "mmdit_128", "severity": 0.3},
        {"name": "vae", "model": "/models/taesd"},
        {"name": "remover"},
        {"name": "jpeg"},
    ]
    assert transform_models(nodes) == (
        "dynamicrafter:embedded",
        "cogvideox:embedded",
        "vae:/models/taesd",
        "remover:embedded",
    )
