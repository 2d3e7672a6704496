"""What is particular to each space, measured on the astronaut and against other libraries."""

import io

import numpy as np
import pytest
import scipy.fft
import skimage.color
import skimage.data
import torch
from PIL import Image

from anti_i2v_lit.ops.quantise import quantise_8bit
from anti_i2v_lit.spaces import SPACES

LEVEL = 1 / 255


@pytest.fixture(scope="module")
def astronaut():
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255.0


@pytest.fixture(scope="module")
def soft(astronaut):
    """The astronaut with less contrast: no pixel within 30 levels of a limit."""
    return 0.3 + 0.4 * astronaut[..., 40:168, 160:288]


LOWEST = {"frequency_share": 0.125, "budget_share": 0.5}


def random_cloak(photo, budget_8bit, **node):
    space = SPACES.build(node)
    start = space.start(photo, budget_8bit, [torch.Generator().manual_seed(0)], 1.0)
    return space.decode(photo, start, budget_8bit)


def lab(photo):
    return skimage.color.rgb2lab(photo[0].permute(1, 2, 0).double().numpy())


def lightness_change(photo, cloak):
    return np.abs(lab(cloak)[..., 0] - lab(photo)[..., 0])


def survival(photo, cloak, quality, subsampling):
    """Share of the residual left after a save, as the projection of what is left on it."""

    def save(image):
        file = io.BytesIO()
        pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
        return np.asarray(Image.open(file)).astype(float)

    before = ((cloak - photo)[0] * 255).permute(1, 2, 0).double().numpy()
    return (before * (save(cloak) - save(photo))).sum() / (before**2).sum()


def test_chroma_leaves_lightness_alone_where_no_limit_binds(soft):
    cloak = random_cloak(soft, 16.0, name="lab_chroma", budget_share=0.4)
    change = lab(cloak) - lab(soft)
    assert np.abs(change[..., 0]).max() < 2e-3
    # The offsets are what scikit-image finds in a* and b*.
    np.testing.assert_allclose(np.abs(change[..., 1:]), 0.4 * 16 * 110 / 255, atol=5e-3)


def test_chroma_moves_lightness_a_little_on_a_real_photo(astronaut):
    cloak = random_cloak(astronaut, 16.0, name="lab_chroma")
    change = lightness_change(astronaut, cloak)
    assert change.mean() < 0.1
    assert change.max() < 1.5
    # The same number of grey levels in RGB moves it forty times as much.
    rgb = random_cloak(astronaut, 16.0, name="rgb")
    assert lightness_change(astronaut, rgb).mean() > 30 * change.mean()


def test_chroma_projection_spares_lightness_that_the_clamp_alone_would_move(astronaut):
    space = SPACES.build({"name": "lab_chroma"})
    generator = torch.Generator().manual_seed(0)
    size = space.step_sizes(astronaut, 0, 16.0, 16.0)["chroma"]
    signs = torch.randint(0, 2, (1, 2, 512, 512), generator=generator) * 2.0 - 1.0
    raw = {"chroma": size * signs}
    clamped = space.decode(astronaut, raw, 16.0)
    projected = space.decode(astronaut, space.project(astronaut, raw, 16.0), 16.0)
    spared = lightness_change(astronaut, projected).mean()
    assert spared < 0.4 * lightness_change(astronaut, clamped).mean()


def test_chroma_budget_defaults_to_110_over_255_units_per_level(soft):
    space = SPACES.build({"name": "lab_chroma"})
    assert space.step_sizes(soft, 0, 16.0, 16.0)["chroma"].item() == pytest.approx(6.902, abs=1e-3)


@pytest.mark.parametrize("budget_8bit", [4.0, 16.0])
@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_a_share_of_the_budget_changes_the_limit_of_chroma_and_not_the_step(
    soft, share, budget_8bit
):
    space = SPACES.build({"name": "lab_chroma", "budget_share": share})
    size = space.step_sizes(soft, 0, 2.0, budget_8bit)["chroma"]
    assert size.item() == pytest.approx(2 * 110 / 255)
    far = {"chroma": torch.full((1, 2, 128, 128), 200.0)}
    (held,) = space.project(soft, far, 64.0).values()
    assert held.max() == pytest.approx(share * 64 * 110 / 255, rel=1e-5)


def test_white_can_still_change_colour():
    """L* = 100 has one colour only, so a fit that kept L* would freeze bright backgrounds."""
    white = torch.ones(1, 3, 16, 16)
    cloak = random_cloak(white, 16.0, name="lab_chroma")
    assert (white - cloak).max() > 4 * LEVEL


def test_low_frequencies_are_the_only_ones_where_no_limit_binds(soft):
    node = {"name": "low_frequency", "frequency_share": 0.125}
    space = SPACES.build(node)
    sizes = space.step_sizes(soft, 0, 1.0, 16.0)
    signs = torch.randint(0, 2, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
    residual = space.decode(soft, {"low_frequency": sizes["low_frequency"] * signs}, 16.0) - soft
    spectrum = scipy.fft.dctn(residual.double().numpy(), norm="ortho", axes=(-2, -1))
    inside = (spectrum[..., :16, :16] ** 2).sum()
    assert inside / (spectrum**2).sum() > 1 - 1e-9
    # A sign step of one level changes pixels by one level in root mean square.
    assert residual.square().mean().sqrt().item() == pytest.approx(LEVEL, rel=1e-3)


@pytest.mark.parametrize("budget_share", [0.25, 1.0])
@pytest.mark.parametrize("frequency_share", [0.1, 0.5])
def test_a_step_means_the_same_whatever_the_shares(soft, frequency_share, budget_share):
    space = SPACES.build(
        {"name": "low_frequency", "frequency_share": frequency_share, "budget_share": budget_share}
    )
    (shape,) = [v.shape for v in space.start(soft, 16.0, [torch.Generator()], 0.0).values()]
    size = space.step_sizes(soft, 0, 1.0, 64.0)["low_frequency"]
    cloak = space.decode(soft, {"low_frequency": size * torch.ones(shape).tril()}, 64.0)
    coefficients = scipy.fft.dctn((cloak - soft).double().numpy(), norm="ortho", axes=(-2, -1))
    share = shape[-1] * shape[-2] / (128 * 128)
    assert np.abs(coefficients).max() * share**0.5 == pytest.approx(LEVEL, rel=0.35)


def test_low_frequencies_keep_to_their_share_of_the_budget(astronaut):
    cloak = random_cloak(astronaut, 16.0, name="low_frequency", budget_share=0.25)
    assert (cloak - astronaut).abs().max() <= 4 * LEVEL + 1e-6
    assert (cloak - astronaut).square().mean().sqrt() > 2 * LEVEL


def test_repeated_steps_stay_in_the_band(soft):
    space = SPACES.build({"name": "low_frequency", **LOWEST})
    generator = torch.Generator().manual_seed(0)
    parameters = space.start(soft, 16.0, [generator], 0.0)
    pull = torch.randn(parameters["low_frequency"].shape, generator=generator)
    for step in range(60):
        noise = torch.randn(pull.shape, generator=generator)
        moved = parameters["low_frequency"] + space.step_sizes(soft, step, 1.0, 16.0)[
            "low_frequency"
        ] * torch.sign(pull + noise)
        parameters = space.project(soft, {"low_frequency": moved}, 16.0)
    residual = (space.decode(soft, parameters, 16.0) - soft).double().numpy()
    spectrum = scipy.fft.dctn(residual, norm="ortho", axes=(-2, -1))
    assert (spectrum[..., :16, :16] ** 2).sum() / (spectrum**2).sum() > 0.98
    # Rescaling whole photos to fit the highest peak would end near a quarter of the limit.
    assert np.sqrt((residual**2).mean()) > 0.5 * 8 * LEVEL


def test_dual_parts_take_turns(soft):
    turns = SPACES.build({"name": "dual", "alternate_every": 2})
    groups = [sorted(turns.step_sizes(soft, step, 1.0, 16.0)) for step in range(6)]
    first, second = ["chroma"], ["low_frequency"]
    assert groups == [first, first, second, second, first, first]
    together = SPACES.build({"name": "dual", "alternate_every": 0})
    assert sorted(together.step_sizes(soft, 0, 1.0, 16.0)) == ["chroma", "low_frequency"]


def test_dual_is_the_sum_of_its_parts_inside_the_ball(soft):
    dual = SPACES.build({"name": "dual"})
    parameters = {
        n: 0.2 * v
        for n, v in dual.start(soft, 16.0, [torch.Generator().manual_seed(0)], 1.0).items()
    }
    parts = torch.zeros_like(soft)
    for name in ("lab_chroma", "low_frequency"):
        parts += SPACES.build({"name": name}).decode(soft, parameters, 16.0) - soft
    # The second part is added to an already coloured photo, which changes no RGB value.
    torch.testing.assert_close(dual.decode(soft, parameters, 16.0) - soft, parts, atol=1e-5, rtol=0)


def test_low_frequencies_leave_the_chroma_of_clipped_pixels_alone():
    """On white, a wave upwards is no change at all, so it must not undo the colour either."""
    white = torch.ones(1, 3, 64, 64)
    dual = SPACES.build({"name": "dual"})
    generator = torch.Generator().manual_seed(0)
    raw = dual.start(white, 16.0, [generator], 0.0)
    sizes = {"chroma": 3.0, "low_frequency": 0.3}
    raw = {n: sizes[n] * torch.randn(v.shape, generator=generator) for n, v in raw.items()}
    parameters = dual.project(white, raw, 16.0)
    cloak, coloured, smooth = (
        SPACES.build({"name": name}).decode(white, parameters, 16.0)
        for name in ("dual", "lab_chroma", "low_frequency")
    )
    upwards = smooth == white
    assert upwards.float().mean() > 0.1
    assert (white - coloured)[upwards].mean() > LEVEL
    assert (cloak - coloured)[upwards].abs().mean() < 0.1 * LEVEL


def test_dual_makes_the_chroma_yield_where_both_press_on_the_ball(astronaut):
    start = {
        name: SPACES.build({"name": name}).start(
            astronaut, 16.0, [torch.Generator().manual_seed(0)], 1.0
        )
        for name in ("dual", "lab_chroma")
    }
    # The dual space draws its chroma first: the same signs, so the same start but for the ball.
    beside, alone = (start[name]["chroma"] for name in ("dual", "lab_chroma"))
    assert beside.square().mean() < 0.95 * alone.square().mean()
    smooth = SPACES.build({"name": "low_frequency"}).project(astronaut, start["dual"], 16.0)
    again = SPACES.build({"name": "dual"}).project(astronaut, start["dual"], 16.0)
    assert torch.equal(again["low_frequency"], smooth["low_frequency"])


# METHOD: on two photographs a save at quality 75 with 4:2:0 kept 2-3 % of high-frequency chroma,
# 15-17 % of white noise and 77-90 % of low frequencies; quality 95 with 4:4:4 kept 93-101 %.
SURVIVAL = {
    "rgb": (0.1, 0.3),
    "lab_chroma": (0.0, 0.1),
    "low_frequency": (0.6, 1.0),
}


@pytest.mark.parametrize("name", sorted(SURVIVAL))
def test_what_a_platform_save_keeps(astronaut, name):
    node = LOWEST if name == "low_frequency" else {}
    cloak = quantise_8bit(random_cloak(astronaut, 8.0, name=name, **node))
    low, high = SURVIVAL[name]
    assert low < survival(astronaut, cloak, 75, "4:2:0") < high


@pytest.mark.parametrize("name", SPACES.names())
def test_our_own_file_keeps_the_cloak(astronaut, name):
    cloak = quantise_8bit(random_cloak(astronaut, 16.0, name=name))
    assert survival(astronaut, cloak, 95, "4:4:4") > 0.93


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "lab_chroma", "budget_share": 0.0}, "budget_share must be above 0"),
        ({"name": "low_frequency", "frequency_share": 1.5}, "frequency_share must be above 0"),
        ({"name": "low_frequency", "budget_share": 0.0}, "budget_share must be above 0"),
        ({"name": "dual", "alternate_every": -1}, "alternate_every must be at least 0"),
        ({"name": "dual", "low_frequency": {"budget_share": 2.0}}, "budget_share must be above 0"),
        ({"name": "dual", "chroma": {"nonsense": 2.0}}, "nonsense"),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        SPACES.build(node)


def unit(values):
    return values / np.sqrt(np.mean(values**2))


def test_steps_of_the_low_frequencies_follow_their_rule(soft):
    """Each rule by scipy's transform: what is subtracted, given the coefficients' gradient."""
    rules = {
        rule: SPACES.build({"name": "low_frequency", "frequency_share": 0.25, "step_rule": rule})
        for rule in ("pixel_sign", "proportional", "sign")
    }
    count = rules["sign"].counts(soft)
    gradient = torch.randn(1, 3, *count, generator=torch.Generator().manual_seed(0))
    whole = np.zeros(tuple(soft.shape))
    whole[..., : count[0], : count[1]] = gradient.numpy()
    pixels = scipy.fft.idctn(whole, axes=(-2, -1), norm="ortho")
    signs = scipy.fft.dctn(np.sign(pixels), axes=(-2, -1), norm="ortho")
    expected = {
        "pixel_sign": unit(signs[..., : count[0], : count[1]]).clip(-4, 4),
        "proportional": unit(gradient.double().numpy()).clip(-4, 4),
        "sign": np.sign(gradient.numpy()),
    }
    for rule, space in rules.items():
        found = space.direction("low_frequency", soft, gradient).numpy()
        np.testing.assert_allclose(found, expected[rule], atol=2e-3)


def test_pixel_signs_of_all_frequencies_are_the_steps_of_rgb(soft):
    """With every frequency the two spaces are one, up to the basis."""
    space = SPACES.build(
        {
            "name": "low_frequency",
            "frequency_share": 1.0,
            "step_rule": "pixel_sign",
            "largest_step_rms": 1e9,
        }
    )
    pixels = torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    gradient = torch.from_numpy(scipy.fft.dctn(pixels.numpy(), axes=(-2, -1), norm="ortho"))
    size = space.step_sizes(soft, 0, 1.0, 16.0)["low_frequency"]
    step = size * space.direction("low_frequency", soft, gradient)
    moved = space.decode(soft, {"low_frequency": -step}, 16.0) - soft
    rgb = SPACES.build({"name": "rgb"})
    expected = -rgb.step_sizes(soft, 0, 1.0, 16.0)["rgb"] * rgb.direction("rgb", soft, pixels)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)
