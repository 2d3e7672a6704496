"""Counting on the meta device against the same step on the processor; the figures of 5B."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anti_i2v_lit.bench.count import count_step, weight_bytes
from anti_i2v_lit.bench.meter import Meter
from anti_i2v_lit.bench.model_speed import ModelSpeed, matmul_rate
from anti_i2v_lit.bench.published import PUBLISHED, random_surrogate
from anti_i2v_lit.bench.published.base import Size
from anti_i2v_lit.cli.main import main
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate


def terms() -> list[Objective]:
    return [OBJECTIVES.build({"name": name}) for name in ("denoising", "irc")]


def small(device: str, checkpointing: bool = False) -> Size:
    return Size(
        device=device,
        dtype=torch.float32,
        height=64,
        width=96,
        num_frames=1,
        num_blocks=2,
        activation_checkpointing=checkpointing,
    )


def test_the_whole_of_cogvideox_weighs_what_is_published() -> None:
    """zai-org/CogVideoX-5b-I2V: 5.57 billion parameters, 11.14 GB of transformer in bfloat16."""
    weights = weight_bytes(random_surrogate("cogvideox_5b", Size(device="meta")))
    assert weights["TappedTransformer"] == pytest.approx(11.14e9, rel=0.01)


def test_the_published_names_are_known() -> None:
    assert {"cogvideox_5b", "wan_2_2", "wan_2_1", "open_sora", "dynamicrafter_512", "svd"} <= set(
        PUBLISHED
    )
    with pytest.raises(ValueError, match="Did you mean 'cogvideox_5b'"):
        random_surrogate("cogvideox_5", Size())
    with pytest.raises(ValueError, match="--height"):
        Size(height=-1)
    with pytest.raises(ValueError, match="--num-blocks"):
        random_surrogate("svd", Size(device="meta", num_blocks=3))


def test_parts_add_up_and_depend_on_what_they_should() -> None:
    one, four, apart = (
        count_step(
            random_surrogate("cogvideox_5b", small("meta")),
            terms(),
            num_draws=draws,
            encoder_first=apart,
        )
        for draws, apart in ((1, False), (4, False), (4, True))
    )
    assert one.pool == 0 and four.pool == apart.pool > 0
    assert four.peak == sum(four.weights.values()) + four.pool + max(four.phases.values()) + (
        four.workspace
    )
    assert four.phases == one.phases
    assert apart.phases["denoiser forward"] < four.phases["denoiser forward"]
    assert "encoder repeated and backward" in apart.phases
    # The photo is encoded once more, and nothing else is done again.
    assert four.recomputed_flops == 0
    assert apart.recomputed_flops == four.flops["photo encoded"]
    assert sum(apart.flops.values()) == sum(four.flops.values())


def test_recomputation_is_seen() -> None:
    plain, again = (
        count_step(
            random_surrogate("cogvideox_5b", small("meta", checkpointing)),
            terms(),
            num_draws=2,
            encoder_first=False,
        )
        for checkpointing in (False, True)
    )
    assert again.peak < plain.peak
    assert plain.recomputed_flops == 0 < again.recomputed_flops
    assert again.flops == plain.flops


def toy(size: Size) -> Surrogate:
    """Stands in for a published model where something is run."""
    return CogVideoXSurrogate.tiny()


@pytest.fixture
def known_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "toy", "tests.bench.test_count:toy")


def test_one_pass_counts_the_same_where_it_runs(known_toy: None) -> None:
    """Shapes alone against real tensors."""
    counted = []
    for device in ("meta", "cpu"):
        surrogate = random_surrogate("toy", small(device))
        views = torch.full((1, 3, *surrogate.view_size), 0.5, device=device).requires_grad_()
        with Meter() as meter:
            condition = surrogate._condition(views, frozenset())
            torch.autograd.grad(condition.latents.sum(), views)
        counted.append((meter.peak, meter.total_flops))
    assert counted[0][1] == counted[1][1] > 0
    assert counted[0][0] == pytest.approx(counted[1][0], rel=0.1)


def test_the_verb_prints_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "64", "--width", "64", "--num-blocks", "4"]
    assert main(["bench", "--surrogate", "ltx", "--count", *size, "attack.encoder_first=1"]) == 0
    text = capsys.readouterr().out
    assert "| **peak** |" in text and "recomputed" in text
    assert main(["bench", "--count"]) == 1
    assert "--surrogate NAME" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["random", "folder"])
def test_the_verb_measures_a_model(
    source: str, known_toy: None, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "random": ["toy", "--random-weights"],
        "folder": ["cogvideox", f"surrogates.0.path={tiny_checkpoint}"],
    }
    few = ["--device", "cpu", "--steps", "1", "attack.num_draws=2", "framing.canvas_side_px=48"]
    assert main(["bench", "--surrogate", *words[source], *few]) == 0
    text = capsys.readouterr().out
    assert "32 x 32 px, 5 frames" in text
    for row in ("photos per hour, product over", "utilisation", "memory: weights"):
        assert f"| {row}" in text


def test_figures_of_a_photo_by_hand() -> None:
    speed = ModelSpeed(
        steps=100, num_draws=10, step_seconds=0.5, draw_seconds=1.0, plain_step_seconds=2.4,
        flops=10**12, recomputed_flops=5 * 10**11, matmul_flops=4e12, weight_bytes=1, peak_bytes=1,
    )  # fmt: skip
    assert speed.photo_seconds == 60 and speed.ratio == 4
    assert (speed.utilisation, speed.busy) == (0.5, 0.75)


def test_the_matrix_rate_is_plausible() -> None:
    assert 1e8 < matmul_rate("cpu", torch.float32) < 1e13
