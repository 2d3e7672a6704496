"""Every baseline's file names its command, takes steps, and is the row of the main table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anti_i2v_lit.bench.lists import list_path
from anti_i2v_lit.bench.plan import read_plan, variant_settings
from anti_i2v_lit.bench.subjects import jobs_of
from anti_i2v_lit.cloaking.build import build_loop, build_objectives
from anti_i2v_lit.cloaking.ensemble import WeightedSurrogate
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.settings import load_settings
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate

FOLDER = Path(__file__).parents[2] / "configs" / "cloak" / "baselines"
FILES = sorted(FOLDER.glob("*.yaml"))
NOT_A_ROW = {"random_noise"}  # the table makes its noise without a model


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return CogVideoXSurrogate.tiny()


def test_the_published_baselines_are_there() -> None:
    assert {path.stem for path in FILES} >= {
        "advdm_plus", "advdm_minus", "mist", "sds_plus", "sds_minus", "photoguard", "vid_freeze",
        "random_noise",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_baseline_names_its_command_and_takes_steps(path: Path, surrogate: Surrogate) -> None:
    head = path.read_text(encoding="utf-8").split("include:")[0]
    assert f"anti-i2v cloak PHOTOS --out DIR --config configs/cloak/baselines/{path.name}" in head
    settings = load_settings(path, ["attack.num_draws=1", "framing.canvas_side_px=48"])
    assert settings.attack.budget_8bit == 16 and settings.space == {"name": "rgb"}
    model = WeightedSurrogate(
        name="tiny",
        surrogate=surrogate,
        weight=1.0,
        objectives=build_objectives(settings.objectives, "cpu"),
    )
    loop = build_loop(
        seed=0,
        attack=settings.attack,
        space=settings.space,
        surrogates=[model],
        framing=Framing(settings.framing),
        device="cpu",
    )
    (job,) = jobs_of(settings, loop, 1)
    loop.begin(job)
    start = loop.cloaked_canvas(job).detach()
    optimiser = SignDescent(settings.attack.momentum)
    optimiser.add_photo(job.parameters.values())
    for _ in range(2):
        loop.step([job], optimiser)
    moved = (loop.cloaked_canvas(job).detach() - start).abs().max() * 255
    assert 0 < moved <= 2 * settings.attack.step_8bit + 1e-3
    change = (loop.cloaked_canvas(job).detach() - job.canvas).abs() * 255
    assert change.max() <= 16 + 1e-3
    if path.stem == "random_noise":
        inside = (job.canvas > 0.1) & (job.canvas < 0.9)
        torch.testing.assert_close(
            change[inside], torch.full_like(change[inside], 16.0), atol=0.05, rtol=0
        )


def test_the_main_table_has_a_row_of_every_baseline() -> None:
    rows = variant_settings(read_plan(list_path("main")), [])
    files = {path.stem: load_settings(path) for path in FILES if path.stem not in NOT_A_ROW}
    for name, settings in files.items():
        assert rows[name].identity() == settings.identity(), name
    alike = load_settings(FOLDER.parent / "rgb_pgd.yaml").identity()
    ours = rows["advdm_plus"].identity()
    assert {k: v for k, v in ours.items() if k != "gate"} == {
        k: v for k, v in alike.items() if k != "gate"
    }
