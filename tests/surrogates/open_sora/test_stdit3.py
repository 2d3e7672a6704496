"""The denoiser against numbers of the published implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anti_i2v_lit.surrogates.open_sora import STDiT3
from tests.surrogates.open_sora.conftest import Parity, assert_same, manifest_of, parity_of

SMALL = {
    "depth": 2,
    "hidden_size": 24,
    "num_heads": 2,
    "caption_channels": 8,
    "model_max_length": 5,
}


@pytest.fixture(scope="module")
def parity(real_data: Path) -> Parity:
    return parity_of(real_data, "opensora_stdit3")


def seeded(**fields: object) -> STDiT3:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return STDiT3(**{**SMALL, **fields}).eval()


def inputs(frames: int = 3, rows: int = 4, columns: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "x": torch.randn(2, 4, frames, rows, columns, generator=generator),
        "timestep": torch.tensor([250.0, 731.5]),
        "y": torch.randn(2, 1, 5, 8, generator=generator),
        "mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "x_mask": torch.tensor([[False, *[True] * (frames - 1)]] * 2),
        "fps": torch.tensor([24.0, 8.0]),
        "height": torch.tensor([32.0, 32.0]),
        "width": torch.tensor([48.0, 48.0]),
    }


def test_outputs_taps_and_gradient_are_the_published_ones(parity: Parity) -> None:
    model = STDiT3(**parity.config).eval()
    model.load_state_dict(parity.weights, strict=True)
    arguments = {k.removeprefix("in."): v for k, v in parity.numbers.items() if k[:3] == "in."}
    weights = arguments.pop("grad_output")
    arguments["x"].requires_grad_()
    taps: list[torch.Tensor] = []
    for block in model.temporal_blocks:
        block.register_forward_hook(lambda _m, _i, tokens: taps.append(tokens))
    found = model(**arguments)
    assert_same(found, parity["out.y"])
    assert len(taps) == 3
    for i, tokens in enumerate(taps):
        assert_same(tokens, parity[f"out.block{i}"])
    (gradient,) = torch.autograd.grad((found * weights).sum(), arguments["x"])
    assert_same(gradient, parity["out.grad_x"])


def test_full_model_has_the_published_names_and_shapes(real_data: Path) -> None:
    with torch.device("meta"):
        model = STDiT3()
    found = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert found == manifest_of(real_data, "opensora_v1_2_stdit3_xl_2")


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (3, 4, 6)),
        ({}, (1, 5, 7)),
        ({"patch_size": (1, 1, 1), "pred_sigma": False, "qk_norm": False}, (2, 3, 5)),
        ({"patch_size": (2, 2, 4), "mlp_ratio": 2.5}, (4, 6, 9)),
        ({"patch_size": (1, 3, 2), "in_channels": 4}, (3, 8, 5)),
    ],
)
def test_every_size_comes_back_as_it_went_in(
    fields: dict[str, object], size: tuple[int, int, int]
) -> None:
    model, arguments = seeded(**fields), inputs(*size)
    frames = -(-size[0] // model.patch_size[0])
    arguments["x_mask"] = arguments["x_mask"][:, :frames]
    with torch.no_grad():
        found = model(**arguments)
    assert found.shape == (2, model.out_channels, *size) and found.isfinite().all()


def test_padding_words_do_not_count_and_others_do() -> None:
    model, arguments = seeded(), inputs()
    with torch.no_grad():
        expected = model(**arguments)
        words = arguments["y"].clone()
        words[0, :, 3:] = 100.0
        assert torch.equal(model(**{**arguments, "y": words}), expected)
        words[0, :, 2] = 100.0
        assert not torch.allclose(model(**{**arguments, "y": words})[0], expected[0], atol=1e-5)


def test_condition_frames_run_at_timestep_zero() -> None:
    model, arguments = seeded(), inputs()

    def tokens(timestep: torch.Tensor, x_mask: torch.Tensor | None) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        handle = model.temporal_blocks[-1].register_forward_hook(lambda *a: seen.append(a[2]))
        with torch.no_grad():
            model(**{**arguments, "timestep": timestep, "x_mask": x_mask})
        handle.remove()
        return seen[0]

    noisy, zero = arguments["timestep"], torch.zeros(2)
    at_zero, plain = tokens(zero, None), tokens(noisy, None)
    torch.testing.assert_close(tokens(noisy, torch.zeros(2, 3, dtype=torch.bool)), at_zero)
    torch.testing.assert_close(tokens(noisy, torch.ones(2, 3, dtype=torch.bool)), plain)
    assert not torch.allclose(plain, at_zero, atol=1e-3)


def test_rows_of_conditions_repeat_for_guidance() -> None:
    model, arguments = seeded(), inputs()
    twice = {name: torch.cat([arguments[name]] * 2) for name in ("x", "timestep", "y", "x_mask")}
    with torch.no_grad():
        expected = model(**arguments)
        found = model(**{**arguments, **twice})
    torch.testing.assert_close(found, torch.cat([expected, expected]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 25}, "multiple of 4"),
        ({"num_heads": 5}, "num_heads"),
        ({"skip_y_embedder": True}, "skip_y_embedder"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seeded(**fields)


def test_missing_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="fps, height and width"):
        seeded()(**{**inputs(), "fps": None})
