"""Several surrogates: whose turn it is, how loud each is, who waits where, which terms each has."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from anti_i2v_lit.cloaking.build import build_objectives
from anti_i2v_lit.cloaking.ensemble import (
    EnsembleConfig,
    Residence,
    Schedule,
    WeightedSurrogate,
    names_of,
    normalised,
)
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop
from anti_i2v_lit.data.framing import Framing, FramingConfig
from anti_i2v_lit.spaces import SPACES
from tests.cloaking.linear import AttackConfig, LinearSurrogate, make_job, make_loop, run

NODES = [{"name": "denoising"}, {"name": "ira_latent"}]


class Negative(LinearSurrogate):
    """Sees the photo the other way round, in a view of its own size."""

    def _condition(self, views, encoder_taps):
        return super()._condition(1 - views, encoder_taps)


def pair(first: float = 1.0, second: float = 1.0) -> dict[str, tuple[LinearSurrogate, float]]:
    return {"one": (LinearSurrogate(), first), "two": (Negative(8), second)}


def end(loop: CloakLoop, steps: int = 6, key: str = "a.png") -> np.ndarray:
    job = make_job(key)
    run(loop, [job], steps)
    return loop.cloaked_canvas(job).detach().numpy()


@pytest.mark.parametrize("normalise", ["l1", "l2"])
@pytest.mark.parametrize("space", ["rgb", "dual"])
def test_a_model_that_shouts_is_not_heard_more(normalise: str, space: str) -> None:
    ends = []
    for loudness in (1.0, 1024.0, 1000.0):
        terms = [{**node, "weight": loudness} for node in NODES]
        models = [
            WeightedSurrogate(name="one", surrogate=LinearSurrogate(), weight=1.0,
                              objectives=build_objectives(NODES, "cpu")),
            WeightedSurrogate(name="two", surrogate=Negative(8), weight=0.7,
                              objectives=build_objectives(terms, "cpu")),
        ]  # fmt: skip
        loop = CloakLoop(
            seed=5,
            config=AttackConfig(num_draws=3, momentum=0.9),
            space=SPACES.build({"name": space}),
            surrogates=models,
            framing=Framing(FramingConfig(canvas_side_px=16)),
            transforms=(),
            ensemble=EnsembleConfig(normalise=normalise),
        )
        ends.append(end(loop))
    assert np.array_equal(ends[0], ends[1]), "a power of two leaves every bit"
    np.testing.assert_allclose(ends[0], ends[2], atol=1e-5)


def test_without_normalisation_the_loud_one_wins() -> None:
    plain = {"normalise": "none"}
    quiet, loud = pair(), pair(second=1000.0)
    first = end(make_loop(NODES, quiet, ensemble=plain), 1)
    second = end(make_loop(NODES, loud, ensemble=plain), 1)
    assert np.abs(first - second).max() > 1 / 255


def test_norms_follow_numpy_and_zero_stays_zero() -> None:
    gradient = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 1e-7
    array = gradient.double().numpy()
    np.testing.assert_allclose(normalised(gradient, "l1"), array / np.abs(array).mean(), rtol=1e-5)
    size = np.sqrt((array**2).mean())
    np.testing.assert_allclose(normalised(gradient, "l2"), array / size, rtol=1e-5)
    assert normalised(gradient, "none") is gradient
    assert not normalised(torch.zeros(4), "l1").any() and not normalised(torch.zeros(4), "l2").any()


def test_the_gradient_is_the_weighted_sum_of_normalised_ones() -> None:
    alone = {}
    for name in pair():
        # The other one stays in the ensemble at weight 0, so that the draws bear the same names.
        others = {n: (m, float(n == name)) for n, (m, _) in pair().items()}
        loop, job = make_loop(NODES, others, ensemble={"normalise": "none"}), make_job()
        run(loop, [job], 1)
        alone[name] = job.parameters["rgb"].grad.double().numpy()
    loop, job = make_loop(NODES, pair(2.0, 0.5)), make_job()
    run(loop, [job], 1)
    expected = sum(w * alone[n] / np.abs(alone[n]).mean() for n, w in (("one", 2.0), ("two", 0.5)))
    np.testing.assert_allclose(job.parameters["rgb"].grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ensemble", [
    {"schedule": "round_robin"}, {"schedule": "sampled"}, {"normalise": "l2"}, {"waiting": "cpu"},
])  # fmt: skip
def test_one_surrogate_feels_nothing_of_the_ensemble(ensemble: dict[str, str]) -> None:
    settings: dict[str, Any] = {"momentum": 0.9, "random_start": 0.3, "framing": {}}
    first = end(make_loop(NODES, **settings))
    assert np.array_equal(first, end(make_loop(NODES, ensemble=ensemble, **settings)))


def turns(kind: str, weights: dict[str, float], steps: int, key: str = "a", attempt: int = 0):
    schedule = Schedule(kind=kind, weights=weights, seed=3)
    return [tuple(schedule.on_duty(key, attempt, step)) for step in range(steps)]


def test_all_work_at_every_step_with_their_weights() -> None:
    weights = {"a": 1.0, "b": 0.25}
    schedule = Schedule(kind="all", weights=weights, seed=0)
    assert all(schedule.on_duty("k", 0, step) == weights for step in range(5))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_round_robin_is_fair_and_meets_every_part_of_an_alternating_space(count: int) -> None:
    names = {f"m{i}": 1.0 for i in range(count)}
    steps = 2 * count * count
    seen = turns("round_robin", names, steps)
    assert all(len(duty) == 1 for duty in seen)
    for start in range(0, steps, count):
        assert len(set(seen[start : start + count])) == count, "each once per round"
    both = Counter((duty, step % 2) for step, duty in enumerate(seen))
    assert set(both.values()) == {count}


def test_samples_follow_the_weights_and_depend_on_photo_step_and_attempt_only() -> None:
    weights = {"a": 3.0, "b": 1.0, "c": 0.0}
    seen = turns("sampled", weights, 2000)
    counts = Counter(duty[0] for duty in seen)
    assert counts["c"] == 0 and abs(counts["a"] / 2000 - 0.75) < 0.03
    assert seen == turns("sampled", weights, 2000)
    assert seen != turns("sampled", weights, 2000, key="b")
    assert seen != turns("sampled", weights, 2000, attempt=1)


@pytest.mark.parametrize("schedule", ["round_robin", "sampled"])
def test_photos_of_a_batch_may_see_different_models(schedule: str) -> None:
    keys = ("a.png", "b.png", "c.png")
    jobs = [make_job(key) for key in keys]
    reports = run(make_loop(NODES, pair(), ensemble={"schedule": schedule}), jobs, 8)
    for report in reports:
        for terms in report.values():
            assert sum(name.endswith("/total") for name in terms) == 1
    if schedule == "sampled":
        assert any(len({tuple(terms) for terms in report.values()}) == 2 for report in reports)
    for job in jobs:
        loop = make_loop(NODES, pair(), ensemble={"schedule": schedule})
        assert np.array_equal(end(loop, 8, job.key), loop.cloaked_canvas(job).detach().numpy())


def test_every_model_gets_views_of_its_own_size_from_the_one_canvas() -> None:
    loop, job = make_loop(NODES, pair()), make_job()
    (report,) = run(loop, [job], 1)[0].values()
    assert loop.view_size == (12, 12)
    shapes = {name: set() for name in job.pools}
    for name, pool in job.pools.items():
        shapes[name] = {tuple(e.references["clean"].views.shape) for e in pool.entries.values()}
    assert shapes == {"one": {(1, 3, 12, 12)}, "two": {(1, 3, 8, 8)}}
    assert report["total"] == pytest.approx(report["one/total"] + report["two/total"])
    found = loop.judge_all(job, [job.canvas, loop.cloaked_canvas(job).detach()])
    for judgement in found:
        assert judgement.total == pytest.approx(sum(judgement.by_surrogate.values()))
    assert found[0].total == loop.judge(job, job.canvas)


def test_draws_belong_to_the_name_and_not_to_the_place_in_the_list() -> None:
    forward, backward = pair(), dict(reversed(pair().items()))
    jobs = []
    for models in (forward, backward):
        job = make_job()
        run(make_loop(NODES, models), [job], 4)
        jobs.append(job)
    for name in forward:
        first, second = (job.pools[name].entries for job in jobs)
        assert sorted(first) == sorted(second)
        assert all(torch.equal(first[n].draw.noise, second[n].draw.noise) for n in first)
    # Two rows of a sum of two may be swapped without changing a bit.
    assert torch.equal(*(job.parameters["rgb"] for job in jobs))


def test_those_who_wait_on_the_cpu_are_fetched_for_their_turn() -> None:
    where = {"a": "cpu", "b": "cpu"}

    class Watched:
        def __init__(self, name: str) -> None:
            self.name = name

        def to(self, device: object) -> None:
            where[self.name] = str(device)

    residence = Residence({n: Watched(n) for n in where}, torch.device("meta"), "cpu")  # type: ignore[misc]
    for name in ("a", "b", "b", "a"):
        residence.fetch(name)
        assert where == {n: "meta" if n == name else "cpu" for n in where}
    assert residence.ordered(["b", "a"]) == ["a", "b"], "who is there goes first"


def test_waiting_on_the_cpu_changes_no_bit() -> None:
    settings: dict[str, Any] = {"momentum": 0.9, "random_start": 0.3}
    first = end(make_loop(NODES, pair(), **settings))
    fetched = make_loop(NODES, pair(), ensemble={"waiting": "cpu"}, **settings)
    assert np.array_equal(first, end(fetched))


def test_names_are_unique() -> None:
    nodes = [{"name": "cogvideox"}, {"name": "svd"}, {"name": "cogvideox"}]
    assert names_of(nodes) == ["cogvideox0", "svd", "cogvideox1"]


def test_a_term_that_a_model_cannot_serve_names_the_model() -> None:
    with pytest.raises(ValueError, match=r"surrogate one: unknown denoiser tap 'block\.9'"):
        make_loop([{"name": "ira_denoiser", "taps": ["block.9"]}], pair())


@pytest.mark.parametrize(("fields", "message"), [
    ({"schedule": "robin"}, "Did you mean 'round_robin'"),
    ({"layout": "per_rank", "waiting": "cpu"}, "never waits"),
])  # fmt: skip
def test_wrong_words_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnsembleConfig(**fields)


def test_weights_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="use schedule=sampled"):
        make_loop(NODES, pair(1.0, 2.0), ensemble={"schedule": "round_robin"})
    with pytest.raises(ValueError, match="expected one above 0"):
        make_loop(NODES, pair(0.0, 0.0))


def test_a_loss_that_is_no_number_names_surrogate_and_photo() -> None:
    class Broken(LinearSurrogate):
        def _encode_clip(self, clips):
            return super()._encode_clip(clips) * float("nan")

        def _denoise(self, condition, draw, taps, prediction):
            found = super()._denoise(condition, draw, taps, prediction)
            return found.__class__(prediction=found.prediction * draw.clip_latents.mean(),
                                   target=found.target, features=found.features)  # fmt: skip

    models = {"fine": (LinearSurrogate(), 1.0), "broken": (Broken(), 1.0)}
    job: PhotoJob = make_job()
    with pytest.raises(ValueError, match=r"surrogate broken: .* step 0 for a\.png"):
        run(make_loop([{"name": "denoising"}], models), [job], 1)
