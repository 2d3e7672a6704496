"""What `PerturbationSpace` promises, for every space in the registry."""

import pytest
import skimage.data
import torch

from anti_i2v_lit.ops.quantise import to_uint8
from anti_i2v_lit.spaces import SPACES

SIZE = (40, 56)


def crop(row, column):
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255.0
    return image[:, row : row + SIZE[0], column : column + SIZE[1]]


def saturated():
    """Pure primaries and their mixtures in bands: every channel clipped, one way or the other."""
    colours = torch.tensor([[r, g, b] for r in (0.0, 1) for g in (0.0, 1) for b in (0.0, 1)])
    return colours.repeat_interleave(SIZE[1] // 8, 0).T[:, None].expand(3, *SIZE).contiguous()


PHOTOS = {
    "black": torch.zeros(3, *SIZE),
    "white": torch.ones(3, *SIZE),
    "saturated": saturated(),
    "random": torch.randint(0, 256, (3, *SIZE), generator=torch.Generator().manual_seed(7)) / 255.0,
    "face": crop(60, 190),
}


@pytest.fixture(params=SPACES.names())
def space(request):
    return SPACES.build({"name": request.param})


@pytest.fixture(params=sorted(PHOTOS))
def photo(request):
    return PHOTOS[request.param][None]


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def wild(space, photo, factor, seed=0):
    """Parameters far from zero, not projected."""
    (generator,) = generators(seed)
    start = space.start(photo, 16.0, generators(*range(len(photo))), 0.0)
    sizes = space.step_sizes(photo, 0, 16.0, 16.0) | space.step_sizes(photo, 1, 16.0, 16.0)
    return {
        name: factor * sizes[name] * torch.randn(value.shape, generator=generator)
        for name, value in start.items()
    }


def promised(photo, cloak, budget_8bit):
    assert cloak.shape == photo.shape and cloak.dtype == photo.dtype
    assert torch.isfinite(cloak).all()
    assert cloak.min() >= 0 and cloak.max() <= 1
    assert (cloak - photo).abs().max() <= budget_8bit / 255 + 1e-6
    levels = (to_uint8(cloak).int() - to_uint8(photo).int()).abs().max()
    assert levels <= budget_8bit


@pytest.mark.parametrize("budget_8bit", [1.0, 8.0, 16.0])
@pytest.mark.parametrize("factor", [0.3, 3.0, 1000.0])
def test_any_parameters_stay_in_range_and_budget(space, photo, factor, budget_8bit):
    parameters = wild(space, photo, factor)
    promised(photo, space.decode(photo, parameters, budget_8bit), budget_8bit)
    projected = space.project(photo, parameters, budget_8bit)
    promised(photo, space.decode(photo, projected, budget_8bit), budget_8bit)


def test_zero_parameters_give_the_photo_bit_for_bit(space, photo):
    parameters = space.start(photo, 16.0, generators(0), 0.0)
    assert torch.equal(space.decode(photo, parameters, 16.0), photo)
    projected = space.project(photo, parameters, 16.0)
    assert all(not value.any() for value in projected.values())
    assert torch.equal(space.decode(photo, projected, 16.0), photo)


@pytest.mark.parametrize("factor", [0.0, 1.0, 1000.0])
def test_gradients_are_finite(space, photo, factor):
    parameters = {n: v.requires_grad_() for n, v in wild(space, photo, factor).items()}
    weights = torch.randn(photo.shape, generator=generators(1)[0])
    loss = (space.decode(photo, parameters, 16.0) * weights).sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients)


def test_gradient_predicts_a_small_change(space):
    """Away from every limit the decoder is smooth, so a central difference must agree."""
    photo = 0.3 + 0.4 * PHOTOS["face"][None]
    parameters = {n: 0.02 * v for n, v in wild(space, photo, 1.0).items()}
    leaves = {n: v.clone().requires_grad_() for n, v in parameters.items()}
    weights = torch.randn(photo.shape, generator=generators(1)[0])
    loss = (space.decode(photo, leaves, 16.0) * weights).sum()
    gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for name, value in parameters.items():
        step = 0.01 * gradients[name] * value.abs().mean() / gradients[name].abs().mean()
        ends = [
            (space.decode(photo, parameters | {name: value + s * step}, 16.0) * weights).double()
            for s in (1, -1)
        ]
        measured = ((ends[0] - ends[1]).sum() / 2).item()
        assert (gradients[name] * step).sum().item() == pytest.approx(measured, rel=0.02)


def test_a_batch_of_two_equals_two_singles(space):
    photos = torch.stack((PHOTOS["face"], PHOTOS["saturated"]))
    both = space.start(photos, 16.0, generators(3, 4), 1.0)
    cloaks = space.decode(photos, both, 16.0)
    for index, seed in enumerate((3, 4)):
        single = photos[index : index + 1]
        alone = space.start(single, 16.0, generators(seed), 1.0)
        for name, value in alone.items():
            torch.testing.assert_close(both[name][index : index + 1], value)
        torch.testing.assert_close(
            cloaks[index : index + 1], space.decode(single, alone, 16.0), atol=1e-6, rtol=0
        )


def test_projection_leaves_parameters_inside_alone(space):
    photo = 0.3 + 0.4 * PHOTOS["face"][None]
    parameters = {n: 0.05 * v for n, v in wild(space, photo, 1.0).items()}
    for name, value in space.project(photo, parameters, 16.0).items():
        assert torch.equal(value, parameters[name])


def test_projection_keeps_parameters_from_running_away(space, photo):
    """A hundred steps in one direction end where ten end, and turning back shows at once."""
    sizes = space.step_sizes(photo, 0, 4.0, 16.0) | space.step_sizes(photo, 1, 4.0, 16.0)
    signs = {n: v.sign() for n, v in wild(space, photo, 1.0).items()}
    ends = {}
    parameters = {n: torch.zeros_like(v) for n, v in signs.items()}
    for step in range(100):
        moved = {n: v + sizes[n] * signs[n] for n, v in parameters.items()}
        parameters = space.project(photo, moved, 16.0)
        ends[step] = {n: v.norm() for n, v in parameters.items()}
    assert all(ends[99][n] <= 1.3 * ends[19][n] + 1e-6 for n in signs)


def test_random_start_repeats_and_depends_on_the_generator(space):
    photo = PHOTOS["face"][None]
    first, again, other = (space.start(photo, 16.0, generators(s), 1.0) for s in (5, 5, 6))
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert all(not torch.equal(first[n], other[n]) for n in first)


def test_steps_scale_with_the_step_and_not_with_the_budget(space):
    photo = PHOTOS["face"][None]
    small, large, tight = (
        space.step_sizes(photo, 0, step, budget)
        for step, budget in ((1.0, 16.0), (2.0, 16.0), (1.0, 4.0))
    )
    for name in small:
        torch.testing.assert_close(large[name], 2 * small[name])
        torch.testing.assert_close(tight[name], small[name])


def test_settings_that_do_not_exist_are_refused(space):
    (name,) = [n for n in SPACES.names() if SPACES.load(n) is type(space)]
    with pytest.raises(ValueError, match="unknown field 'nonsense'"):
        SPACES.build({"name": name, "nonsense": 1})
