"""L*a*b* and CIEDE2000 against scikit-image; gradients against finite differences."""

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch

from anti_i2v_lit.ops.colour import ciede2000, lab_to_rgb, rgb_to_lab


@pytest.fixture(scope="module")
def astronaut():
    return torch.from_numpy(skimage.data.astronaut()[::2, ::2]).permute(2, 0, 1)[None] / 255.0


@pytest.fixture(scope="module")
def all_colours():
    """A grid through the whole cube, corners and faces included."""
    axis = torch.linspace(0, 1, 17)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).reshape(1, 3, 17, 289)


def as_image(tensor):
    return tensor[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("name", ["astronaut", "all_colours"])
def test_lab_agrees_with_scikit_image(name, request):
    rgb = request.getfixturevalue(name)
    expected = skimage.color.rgb2lab(as_image(rgb))
    # scikit-image's matrix is rounded to six digits: greys have a* = -0.002 there.
    np.testing.assert_allclose(as_image(rgb_to_lab(rgb)), expected, atol=0.02)


def test_rgb_agrees_with_scikit_image_inside_the_gamut(astronaut):
    lab = rgb_to_lab(astronaut)
    np.testing.assert_allclose(
        as_image(lab_to_rgb(lab)), skimage.color.lab2rgb(as_image(lab)), atol=2e-4
    )


@pytest.mark.parametrize("name", ["astronaut", "all_colours"])
def test_round_trip_is_exact_to_a_hundredth_of_a_grey_level(name, request):
    rgb = request.getfixturevalue(name)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-2 / 255, rtol=0)


def test_greys_have_no_chroma_and_white_is_100():
    greys = torch.linspace(0, 1, 256).expand(1, 3, 1, 256)
    lab = rgb_to_lab(greys)
    assert lab[:, 1:].abs().max() < 1e-3
    assert lab[0, 0, 0, 0].item() == pytest.approx(0, abs=1e-5)
    assert lab[0, 0, 0, -1].item() == pytest.approx(100, abs=1e-4)


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 2, 3, dtype=torch.float64)
    rgb[0, :, 0, 0] = 0.01  # the straight part of the sRGB curve and of the cube root
    lab = rgb_to_lab(rgb)
    assert torch.autograd.gradcheck(rgb_to_lab, rgb.requires_grad_())
    assert torch.autograd.gradcheck(lab_to_rgb, lab.detach().requires_grad_())


@pytest.mark.parametrize("rgb", [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 0, 1), (0.5, 0.5, 0.5)])
@pytest.mark.parametrize("offset", [0.0, 127.0, -127.0])
def test_value_and_gradient_are_finite_at_limits_and_outside_the_gamut(rgb, offset):
    photo = torch.tensor(rgb, dtype=torch.float32).reshape(1, 3, 1, 1).requires_grad_()
    shift = torch.full((1, 2, 1, 1), offset, requires_grad=True)
    lab = rgb_to_lab(photo)
    back = lab_to_rgb(torch.cat((lab[:, :1], lab[:, 1:] + shift), dim=1))
    gradients = torch.autograd.grad(back.sum(), (photo, shift))
    assert all(torch.isfinite(t).all() for t in (lab, back, *gradients))


def test_ciede2000_agrees_with_scikit_image(astronaut, all_colours):
    generator = torch.Generator().manual_seed(0)
    for rgb in (astronaut, all_colours):
        first = rgb_to_lab(rgb)
        for size in (1.0, 20.0, 80.0):
            second = first + size * torch.randn(first.shape, generator=generator)
            expected = skimage.color.deltaE_ciede2000(as_image(first), as_image(second))
            np.testing.assert_allclose(ciede2000(first, second)[0], expected, atol=2e-3)


# Sharma, Wu, Dalal 2005, table 1: pairs chosen where implementations go wrong.
SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_ciede2000_agrees_with_the_published_pairs(first, second, expected):
    pair = [torch.tensor(c, dtype=torch.float64).reshape(1, 3, 1, 1) for c in (first, second)]
    assert ciede2000(*pair).item() == pytest.approx(expected, abs=1e-4)
    assert ciede2000(*reversed(pair)).item() == pytest.approx(expected, abs=1e-4)


def test_ciede2000_of_equal_colours_is_zero(all_colours):
    lab = rgb_to_lab(all_colours)
    assert ciede2000(lab, lab).max() == 0
