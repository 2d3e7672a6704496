"""The loop against sign steps written out by hand, on a surrogate without a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.cloaking.anchor import texture
from anti_i2v_lit.cloaking.member import VERIFICATION
from anti_i2v_lit.cloaking.transforms import build_transforms
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate
from anti_i2v_lit.types import Draw
from tests.cloaking.linear import SIDE, LinearSurrogate, make_job, make_loop, optimiser_of, run

LATENT = [{"name": "ira_latent"}]
AWAY = [{"name": "ira_latent", "direction": "away"}]


def residual(loop, job) -> np.ndarray:
    return (loop.cloaked_canvas(job) - job.canvas).detach().double().numpy()


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_steps_are_those_of_projected_sign_descent(steps: int) -> None:
    """The latent is the view, so the gradient's sign is that of cloak minus anchor."""
    loop, job = make_loop(LATENT, step_8bit=2.0), make_job()
    run(loop, [job], steps)
    photo, goal = job.canvas.double().numpy(), texture(SIDE, SIDE).double().numpy()
    moved = np.zeros_like(photo)
    for _ in range(steps):
        moved = np.clip(moved - 2 / 255 * np.sign(photo + moved - goal), -16 / 255, 16 / 255)
        moved = np.clip(photo + moved, 0, 1) - photo
    np.testing.assert_allclose(residual(loop, job), moved, atol=1e-6)


def test_reported_losses_follow_the_formulas_and_add_up_with_their_weights() -> None:
    nodes = [
        {"name": "ira_latent", "weight": 2.0},
        {"name": "ira_encoder", "weight": -0.5, "direction": "away"},
        {"name": "denoising", "weight": 3.0},
    ]
    loop, job = make_loop(nodes, random_start=1.0), make_job()
    loop.begin(job)
    clean, goal = job.canvas.double().numpy(), texture(SIDE, SIDE).double().numpy()
    cloak = clean + residual(loop, job)
    (report,) = loop.step([job], optimiser_of([job])).values()
    expected = {
        "linear/ira_latent": ((cloak - goal) ** 2).mean() / clean.var(),
        "linear/ira_encoder": -((cloak - clean) ** 2).mean() / clean.var(),
        "linear/denoising": -(cloak**2).mean(),
    }
    expected["total"] = float(np.dot([2.0, -0.5, 3.0], list(expected.values())))
    assert report == pytest.approx(expected, rel=1e-4)


def test_surrogates_add_up_with_their_weights() -> None:
    """Two models of one photo that pull apart: the heavier one decides every sign."""

    class Negative(LinearSurrogate):
        def _condition(self, views, encoder_taps):
            return super()._condition(1 - views, encoder_taps)

    ends = {}
    for first, second in ((1.0, 0.2), (0.2, 1.0)):
        models = {"up": (LinearSurrogate(), first), "down": (Negative(), second)}
        plain = {"normalise": "none"}
        loop = make_loop([{"name": "denoising"}], models, random_start=0.0, ensemble=plain)
        job = make_job()
        (report,) = run(loop, [job], 1)[0].values()
        terms = report["up/denoising"], report["down/denoising"]
        assert report["total"] == pytest.approx(first * terms[0] + second * terms[1])
        view, flipped = job.canvas, 1 - job.canvas
        gradient = -first * view + second * flipped
        ends[first] = residual(loop, job)
        np.testing.assert_allclose(ends[first], -gradient.sign().numpy() / 255, atol=1e-6)
    assert (ends[1.0] != ends[0.2]).mean() > 0.3


def test_only_the_part_whose_turn_it_is_moves() -> None:
    loop = make_loop(LATENT, space={"name": "dual", "alternate_every": 1})
    job = make_job()
    loop.begin(job)
    optimiser = optimiser_of([job])
    seen = []
    for _ in range(4):
        before = {n: p.detach().clone() for n, p in job.parameters.items()}
        loop.step([job], optimiser)
        seen.append(sorted(n for n, p in job.parameters.items() if not torch.equal(p, before[n])))
    assert seen == [["chroma"], ["low_frequency"], ["chroma"], ["low_frequency"]]


@pytest.mark.parametrize("space", ["rgb", "dual"])
def test_a_photo_does_not_feel_the_photos_beside_it(space: str) -> None:
    nodes = [{"name": "ira_denoiser"}, {"name": "denoising"}, *AWAY]
    settings = {"space": {"name": space}, "random_start": 0.5, "momentum": 0.5}
    together = [make_job(key) for key in ("a.png", "b.png", "c.png")]
    reports = run(make_loop(nodes, **settings), together, 6)
    for position, key in enumerate(("a.png", "b.png", "c.png")):
        alone = make_job(key)
        single = run(make_loop(nodes, **settings), [alone], 6)
        for name, value in alone.parameters.items():
            assert torch.equal(value, together[position].parameters[name]), (key, name)
        assert single[-1][key] == pytest.approx(reports[-1][key], rel=1e-5)


def test_a_batch_of_a_transformer_equals_single_runs() -> None:
    """The miniature of the published model: one step, so that no flipped sign can spread."""
    nodes = [{"name": "irc"}, {"name": "ira_encoder"}, {"name": "denoising"}]
    model = {"tiny": (CogVideoXSurrogate.tiny(), 1.0)}
    settings = {"random_start": 0.5, "framing": {}, "num_draws": 2}
    together = [make_job(key, side=40) for key in ("a.png", "b.png")]
    reports = run(make_loop(nodes, model, **settings), together, 1)
    for position, key in enumerate(("a.png", "b.png")):
        alone = make_job(key, side=40)
        single = run(make_loop(nodes, model, **settings), [alone], 1)
        assert single[0][key] == pytest.approx(reports[0][key], rel=1e-4)
        gradients = [j.parameters["rgb"].grad for j in (alone, together[position])]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_draws_are_made_once_belong_to_the_photo_and_carry_no_gradient() -> None:
    nodes = [{"name": "ira_denoiser"}, {"name": "denoising", "normalise": "clean"}]
    model = LinearSurrogate()
    loop = make_loop(nodes, {"linear": (model, 1.0)}, random_start=0.5, num_draws=3)
    first, second = make_job("a.png"), make_job("b.png")
    run(loop, [first, second], 30)
    assert model.encoded_clips == 6
    assert sorted(first.pools["linear"].entries) == [0, 1, 2]
    draws = {k: [e.draw.noise for e in j.pools["linear"].entries.values()] for k, j in zip(
        ("a", "b"), (first, second), strict=True
    )}  # fmt: skip
    assert not any(torch.equal(a, b) for a in draws["a"] for b in draws["b"])
    for entry in first.pools["linear"].entries.values():
        assert set(entry.references) == {"clean", "anchor"}
        for reference in entry.references.values():
            tensors = [reference.views, reference.condition.latents]
            tensors += [*reference.denoised.features.values(), reference.denoised.target]
            assert not any(t.requires_grad for t in tensors)
        clean = entry.references["clean"]
        assert torch.equal(clean.views, first.canvas)
        assert torch.equal(clean.denoised.target, entry.draw.noise[0][None])
    # Another attempt begins anew but meets the same draws.
    noise = {n: e.draw.noise for n, e in first.pools["linear"].entries.items()}
    first.attempt = 1
    loop.begin(first)
    optimiser = optimiser_of([first])
    for _ in range(30):
        loop.step([first], optimiser)
    assert all(
        torch.equal(e.draw.noise, noise[n]) for n, e in first.pools["linear"].entries.items()
    )


def test_timesteps_stay_in_their_window() -> None:
    model = LinearSurrogate()
    nodes = [{"name": "denoising"}]
    settings = {"timestep_low": 0.3, "timestep_high": 0.5, "num_draws": 40}
    loop = make_loop(nodes, {"linear": (model, 1.0)}, **settings)
    run(loop, [make_job()], 60)
    assert min(model.timesteps_seen) >= 300 and max(model.timesteps_seen) < 500
    assert len(set(model.timesteps_seen)) > 15


def test_untargeted_terms_need_the_random_start() -> None:
    for start, moves in ((0.0, False), (0.1, True)):
        loop, job = make_loop(AWAY, random_start=start), make_job()
        run(loop, [job], 20)
        assert bool(np.abs(residual(loop, job)).max() > 0.05) == moves


def test_judging_uses_draws_that_the_attack_never_sees() -> None:
    loop, job = make_loop(AWAY, random_start=0.5, num_verification_draws=2), make_job()
    run(loop, [job], 5)
    assert loop.judge(job, job.canvas) == 0
    reached = loop.judge(job, loop.cloaked_canvas(job))
    clean, cloak = job.canvas.double().numpy(), loop.cloaked_canvas(job).detach().double().numpy()
    assert reached == pytest.approx(-((cloak - clean) ** 2).mean() / clean.var(), rel=1e-4)
    numbers = sorted(job.pools["linear"].entries)
    assert numbers[-2:] == [VERIFICATION, VERIFICATION + 1]
    assert all(n < 3 for n in numbers[:-2])


def test_judging_is_the_mean_over_draws_and_the_sum_over_surrogates() -> None:
    nodes = [{"name": "ira_denoiser"}]
    models = {"one": (LinearSurrogate(), 1.0), "two": (LinearSurrogate(), 3.0)}
    job = make_job()
    values = {}
    for count in (1, 2):
        loop = make_loop(nodes, models, num_verification_draws=count)
        loop.begin(job)
        values[count] = loop.judge(job, job.canvas)
        if count == 1:
            continue
        singles = []
        for number in range(2):
            one, two = (
                member.losses([job], [job.canvas], [member.entry(job, VERIFICATION + number)])
                for member in loop.members.values()
            )
            singles.append(one["total"].item() + 3 * two["total"].item())
        assert values[2] == pytest.approx(np.mean(singles), rel=1e-5)
        assert singles[0] == pytest.approx(values[1], rel=1e-5)
        assert singles[0] != pytest.approx(singles[1], rel=1e-5)


def test_transforms_are_drawn_for_their_share_of_steps_and_pass_gradients() -> None:
    calls = []

    class Halved:
        """Half as bright: the surrogate sees it, and the gradient is halved too."""

        def apply(self, canvas, generator):
            calls.append(torch.rand((), generator=generator).item())
            return canvas / 2

    nodes = [{"name": "denoising"}]
    models = {"one": (LinearSurrogate(), 1.0), "two": (LinearSurrogate(), 1.0)}
    loop = make_loop(nodes, models, transforms=[Halved()], transform_share=0.25)
    job = make_job()
    reports = run(loop, [job], 80)
    halved = sum(-r["a.png"]["one/denoising"] < 0.15 for r in reports)
    assert len(calls) == 2 * halved and 8 <= halved <= 34
    # Both surrogates see the same draw of the same transform.
    assert calls[::2] == calls[1::2] and len(set(calls[::2])) == halved
    always = make_loop(nodes, transforms=[Halved()], transform_share=1.0)
    other = make_job()
    run(always, [other], 1)
    grad = other.parameters["rgb"].grad
    torch.testing.assert_close(grad, -2 * (other.canvas / 4) / other.canvas.numel())


def test_a_transform_of_the_package_runs_inside_the_loop() -> None:
    transforms = build_transforms([{"name": "jpeg"}, {"name": "noise"}, {"name": "resize"}])
    settings = {"transforms": transforms, "transform_share": 1.0, "space": {"name": "dual"}}
    results = []
    for _ in range(2):
        loop, job = make_loop([{"name": "denoising"}], **settings), make_job()
        run(loop, [job], 12)
        results.append(residual(loop, job))
    assert np.array_equal(*results) and np.abs(results[0]).max() > 4 / 255


def test_a_gradient_that_is_not_a_number_names_its_photo() -> None:
    class Broken(LinearSurrogate):
        def _denoise(self, condition, draw: Draw, taps, prediction):
            found = super()._denoise(condition, draw, taps, prediction)
            # The root has no slope at zero: finite value, infinite gradient.
            found.prediction[-1:].sub_(found.prediction[-1:].detach()).abs_().sqrt_()
            return found

    loop = make_loop([{"name": "denoising"}], {"linear": (Broken(), 1.0)})
    jobs = [make_job("a.png"), make_job("b.png")]
    with pytest.raises(NonFiniteLoss, match=r"step 0 for b\.png") as caught:
        run(loop, jobs, 1)
    assert caught.value.keys == ("b.png",)


def test_a_loop_without_terms_or_models_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one objective"):
        make_loop([])


@pytest.mark.parametrize(
    ("name", "reach"),
    [("irc", 0.2), ("ira_denoiser", 0.2), ("ira_encoder", 0.2), ("denoising", 0.2), ("lpips", 1.0)],
)
def test_gradients_of_the_whole_path_agree_with_finite_differences(name: str, reach: float) -> None:
    """From a*, b* and DCT coefficients through view, encoder and denoiser to every term.

    `reach` is the largest change, in attack steps: small where the model is curved, larger where
    the value is so small that float32 rounds it.
    """
    model = {"tiny": (CogVideoXSurrogate.tiny(), 1.0)}
    smooth = {"frequency_share": 0.125, "budget_share": 0.5}  # fewer kinks of ReLUs are crossed
    space = {"name": "dual", "alternate_every": 0, "low_frequency": smooth}
    settings = {"space": space, "framing": {}, "num_draws": 1}
    loop, job = make_loop([{"name": name}], model, **settings), make_job(side=40)
    job.canvas = 0.35 + 0.3 * job.canvas  # no limit of range or budget is near
    loop.begin(job)
    generator = torch.Generator().manual_seed(1)
    sizes = loop.space.step_sizes(job.canvas, 0, 1.0, 16.0)
    job.assign(
        {n: sizes[n] * torch.randn(p.shape, generator=generator) for n, p in job.parameters.items()}
    )
    loop._set_gradients([job], list(job.parameters.values()))
    member = loop.members["tiny"]
    entry = member.entry(job, 0)
    start = {n: p.detach().clone() for n, p in job.parameters.items()}

    def loss_at(group: str, change: torch.Tensor) -> float:
        job.assign({**start, group: start[group] + change})
        with torch.no_grad():
            canvases = [loop.cloaked_canvas(job)]
            return member.losses([job], canvases, [entry])["total"].item()

    for group, parameter in job.parameters.items():
        gradient = parameter.grad.clone()
        step = reach * sizes[group] * gradient / gradient.abs().max()
        rise = loss_at(group, step) - loss_at(group, -step)
        assert rise == pytest.approx(2 * (gradient * step).sum().item(), rel=0.08), group
