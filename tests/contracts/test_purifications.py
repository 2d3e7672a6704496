"""What `Purification` promises, for every purification in the registry."""

from functools import cache

import pytest
import skimage.data
import torch

from anti_i2v_lit.purifications import PURIFICATIONS

SEVERITIES = [0.1, 0.25, 0.5, 0.75, 1.0]
SHARE_KEPT = {
    "crop": 0.7**2,
    "face_crop": (1 / 3 / 0.6) ** 2,
}  # of the pixels at severity 1, where some are cut off
# Brightness itself is what they change, or a network decides about it.
CHANGES_TONE = {"gamma", "remover", "vae"}
FEW_STEPS = {  # one tile and few steps, so that the suite stays quick
    "diffpure": {"num_steps": 2, "work_px": 32},
    "gridpure": {"num_steps": 1, "num_iterations": 10, "work_px": 32},
    "noisy_upscaling": {"work_px": 32},
    "vae": {"work_px": 64},
}


@pytest.fixture(scope="module")
def photos():
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255.0
    return torch.stack((image[:, :161, 150:301], image[:, 300:461, 100:251]))


@pytest.fixture(params=PURIFICATIONS.names())
def purification(request):
    return built(request.param)


@cache
def built(name):
    return PURIFICATIONS.build({"name": name, **FEW_STEPS.get(name, {})})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shape_range_and_input_are_kept(purification, photos, severity):
    before = photos.clone()
    after = purification.purify(photos, severity, seeded())
    assert torch.equal(photos, before)
    assert after.shape == photos.shape and after.dtype == photos.dtype
    assert after.min() >= 0 and after.max() <= 1


def test_severity_zero_is_identity_and_draws_nothing(purification, photos):
    generator = seeded()
    state = generator.get_state()
    assert torch.equal(purification.purify(photos, 0.0, generator), photos)
    assert torch.equal(generator.get_state(), state)


def test_harder_is_farther(purification, photos):
    distances = [
        (purification.purify(photos, severity, seeded()) - photos).square().mean().item()
        for severity in SEVERITIES
    ]
    assert distances[0] > 0
    assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), distances


def test_same_generator_state_same_result(purification, photos):
    first, second = (purification.purify(photos, 0.6, seeded(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_result_does_not_depend_on_the_rest_of_the_batch_where_nothing_is_drawn(
    purification, photos
):
    """Noise is drawn for the whole batch; everything else treats each photo alone."""
    generator = seeded()
    state = generator.get_state()
    both = purification.purify(photos, 0.6, generator)
    if not torch.equal(generator.get_state(), state):
        pytest.skip("draws from the generator")
    single = purification.purify(photos[1:], 0.6, generator)
    torch.testing.assert_close(both[1:], single, atol=1.1 / 255, rtol=0)
    assert (both[1:] - single).abs().mean() < 1e-4


@pytest.mark.parametrize("severity", [0.1, 1.0])
def test_gradient_reaches_the_input_where_promised(purification, photos, severity, request):
    leaf = photos.clone().requires_grad_()
    after = purification.purify(leaf, severity, seeded())
    assert after.requires_grad == purification.is_differentiable
    if purification.is_differentiable:
        share = SHARE_KEPT.get(request.node.callspec.params["purification"], 1.0)
        weights = torch.randn(photos.shape, generator=seeded(1))
        (gradient,) = torch.autograd.grad((after * weights).sum(), leaf)
        assert torch.isfinite(gradient).all()
        assert (gradient.abs().amax(dim=1) > 0).float().mean() > 0.9 * share


def test_gradient_is_that_of_brightness(purification, photos, request):
    """Brightening the whole photo brightens the result as much, whatever else is removed."""
    if request.node.callspec.params["purification"] in CHANGES_TONE:
        pytest.skip("changes brightness on purpose")
    if not purification.is_differentiable:
        pytest.skip("has no gradient")
    leaf = (0.3 + 0.4 * photos).requires_grad_()
    after = purification.purify(leaf, 0.3, seeded())
    (gradient,) = torch.autograd.grad(after.sum(), leaf)
    assert gradient.sum().item() == pytest.approx(photos.numel(), rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 8)])
def test_tiny_photos_survive(purification, size):
    photo = torch.rand(1, 3, *size, generator=seeded())
    assert purification.purify(photo, 1.0, seeded()).shape == photo.shape


@pytest.mark.parametrize("severity", [-0.1, 1.1, float("nan")])
def test_severity_outside_its_scale_is_refused(purification, photos, severity):
    with pytest.raises(ValueError, match="severity must be between 0 and 1"):
        purification.purify(photos, severity, seeded())


def test_photos_out_of_range_are_refused(purification, photos):
    with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
        purification.purify(photos * 255, 0.5, seeded())
