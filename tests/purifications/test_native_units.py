"""What a severity means in native units, against Pillow, scipy and scikit-image."""

import io

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.exposure
import skimage.transform
import torch
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb
from kornia.filters import guided_blur
from PIL import Image

from anti_i2v_lit.purifications import PURIFICATIONS


@pytest.fixture(scope="module")
def photo():
    return torch.from_numpy(skimage.data.astronaut()[:240, 120:360]).permute(2, 0, 1)[None] / 255.0


def purify(photo, severity, **node):
    return PURIFICATIONS.build(node).purify(photo, severity, torch.Generator().manual_seed(0))


def to_pillow(photo):
    return Image.fromarray((photo[0] * 255).round().byte().permute(1, 2, 0).numpy())


def saved(image, quality, subsampling="4:2:0"):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file)


def levels_apart(tensor, image):
    pixels = np.asarray(image).astype(np.float32)
    return np.abs(tensor[0].permute(1, 2, 0).numpy() * 255 - pixels).mean()


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize(("severity", "quality"), [(0.1, 91), (0.5, 55), (1.0, 10)])
def test_jpeg_severity_is_a_quality(photo, severity, quality, subsampling):
    expected = saved(to_pillow(photo), quality, subsampling)
    real = purify(photo, severity, name="jpeg", subsampling=subsampling, codec="pillow")
    assert levels_apart(real, expected) < 1e-3
    emulated = purify(photo, severity, name="jpeg", subsampling=subsampling)
    assert levels_apart(emulated, expected) < 0.7


def test_default_jpeg_severity_of_the_docstring_is_quality_75():
    jpeg = PURIFICATIONS.build({"name": "jpeg"})
    assert jpeg.quality(0.28) == 75


def test_resize_severity_is_a_share_of_the_sides(photo):
    small = to_pillow(photo).resize((120, 120), Image.Resampling.BICUBIC)
    expected = small.resize((240, 240), Image.Resampling.BICUBIC)
    assert levels_apart(purify(photo, 2 / 3, name="resize"), expected) < 0.5


def test_blur_severity_is_a_standard_deviation_in_pixels(photo):
    expected = scipy.ndimage.gaussian_filter(
        photo.double().numpy(), (0, 0, 1.5, 1.5), mode="nearest", truncate=4.0
    )
    np.testing.assert_allclose(purify(photo, 0.5, name="blur"), expected, atol=2e-4)


def test_noise_severity_is_a_standard_deviation_in_grey_levels():
    grey = torch.full((1, 3, 128, 128), 0.5)
    noise = (purify(grey, 0.5, name="noise") - grey) * 255
    assert noise.std().item() == pytest.approx(8.0, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.15)
    full = (purify(grey, 1.0, name="noise") - grey) * 255
    torch.testing.assert_close(full, 2 * noise, atol=1e-4, rtol=1e-4)


def test_grey_at_full_severity_is_pillows_luma(photo):
    expected = to_pillow(photo).convert("L").convert("RGB")
    assert levels_apart(purify(photo, 1.0, name="grey"), expected) < 0.5
    half = purify(photo, 0.5, name="grey")
    torch.testing.assert_close(half, (photo + purify(photo, 1.0, name="grey")) / 2)


def test_platform_at_full_severity_is_half_size_and_quality_75(photo):
    """Pillow rounds the small image differently, so single coefficients flip; nothing else does."""
    found = purify(photo, 1.0, name="platform")
    apart = {}
    for side, quality in ((120, 75), (120, 65), (120, 85), (96, 75), (144, 75)):
        small = to_pillow(photo).resize((side, side), Image.Resampling.BICUBIC)
        back = saved(small, quality).resize((240, 240), Image.Resampling.BICUBIC)
        apart[side, quality] = levels_apart(found, back)
    assert apart[120, 75] < 1.0
    assert all(apart[120, 75] < 0.6 * v for k, v in apart.items() if k != (120, 75)), apart


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "jpeg", "subsampling": "4:1:1"}, "unknown chroma subsampling '4:1:1'"),
        ({"name": "jpeg", "lowest_quality": 0}, "lowest_quality must be between 1 and 99"),
        ({"name": "jpeg", "codec": "pilow"}, "Did you mean 'pillow'"),
        ({"name": "resize", "smallest_share": 0.0}, "smallest_share must be above 0"),
        ({"name": "blur", "largest_sigma_px": -1.0}, "largest_sigma_px must be above 0"),
        ({"name": "noise", "largest_std_8bit": 0.0}, "largest_std_8bit must be above 0"),
        ({"name": "platform", "lowest_quality": 100}, "lowest_quality must be between 1 and 99"),
        ({"name": "platform", "smallest_share": 1.0}, "smallest_share must be above 0 and below"),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        PURIFICATIONS.build(node)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "box", "lanczos"])
def test_resize_kernels_are_pillows(photo, kernel):
    method = Image.Resampling[kernel.upper()]
    expected = to_pillow(photo).resize((101, 101), method).resize((240, 240), method)
    found = purify(photo, 1.0, name="resize", kernel=kernel, smallest_share=101 / 240)
    # Pillow rounds and clips between its passes.
    assert levels_apart(found, expected) < 0.6


def test_webp_is_pillows(photo):
    file = io.BytesIO()
    to_pillow(photo).save(file, "WEBP", quality=55)
    assert levels_apart(purify(photo, 0.5, name="webp"), Image.open(file).convert("RGB")) == 0


def test_jpeg_twice_is_two_saves_on_shifted_grids(photo):
    """Single coefficients flip in the second save; another grid or quality is farther off."""
    found = purify(photo, 0.5, name="jpeg_twice")
    apart = {}
    for shift, quality in ((4, 65), (0, 65), (2, 65), (4, 55), (4, 75)):
        once = np.asarray(saved(to_pillow(photo), 65))
        padded = Image.fromarray(np.pad(once, ((shift, 0), (shift, 0), (0, 0)), mode="edge"))
        apart[shift, quality] = levels_apart(
            found, np.asarray(saved(padded, quality))[shift:, shift:]
        )
    assert apart[4, 65] < 1.3
    assert all(apart[4, 65] < 0.7 * v for k, v in apart.items() if k != (4, 65)), apart


def test_crop_is_pillows_box(photo):
    expected = to_pillow(photo).resize(
        (240, 240), Image.Resampling.BICUBIC, box=(36.0, 36.0, 204.0, 204.0)
    )
    assert levels_apart(purify(photo, 1.0, name="crop"), expected) < 0.6


@pytest.mark.parametrize("size", [(240, 240), (200, 120)])
def test_rotation_is_scipys_in_degrees(photo, size):
    photo = photo[..., : size[0], : size[1]]
    expected = scipy.ndimage.rotate(
        photo[0].permute(1, 2, 0).numpy(), 10.0, reshape=False, order=1, mode="reflect"
    )
    found = purify(photo, 1.0, name="rotation")
    assert levels_apart(found, expected * 255) < 0.05


def test_chroma_blur_is_scipys_and_leaves_the_luma(photo):
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    pixels = photo[0].permute(1, 2, 0).double().numpy()
    found = purify(photo, 1.0, name="chroma_blur", largest_sigma_share=0.02)
    found = found[0].permute(1, 2, 0).double().numpy() @ matrix.T
    before = pixels @ matrix.T
    inside = slice(60, 180)  # the borders are continued differently
    for channel in (1, 2):
        blurred = scipy.ndimage.gaussian_filter(before[..., channel], 4.8, mode="nearest")
        apart = np.abs(found[..., channel] - blurred)[inside, inside]
        assert np.median(apart) < 0.002
    assert np.median(np.abs(found[..., 0] - before[..., 0])) < 0.002


def test_bit_depth_is_rounding(photo):
    expected = np.round(photo[0].permute(1, 2, 0).numpy() * 7) / 7
    assert levels_apart(purify(photo, 1.0, name="bit_depth"), expected * 255) < 1e-3


def test_gamma_is_skimages(photo):
    expected = skimage.exposure.adjust_gamma(photo[0].permute(1, 2, 0).double().numpy(), 1.6)
    assert levels_apart(purify(photo, 1.0, name="gamma"), expected * 255) < 1e-2


def test_recolour_removes_colour_patterns_that_the_luma_does_not_show():
    grey = torch.full((1, 3, 96, 96), 0.5)
    luma = torch.tensor([0.299, 0.587, 0.114])
    tint = torch.tensor([0.1, 0.0, 0.0])
    tint = tint - (tint * luma).sum()  # no change of luma
    board = (torch.arange(96) // 4 % 2 * 2 - 1).float()
    pattern = board[:, None] * board[None, :]
    photo = grey + tint[None, :, None, None] * pattern
    found = purify(photo, 1.0, name="recolour", window_share=0.5)
    assert (found - grey).abs().mean() < 0.1 * (photo - grey).abs().mean()


def test_recolour_is_kornias_guided_filter(photo):
    ycc = rgb_to_ycbcr(photo[..., :96, :80])
    painted = guided_blur(ycc[:, :1], ycc[:, 1:], (11, 11), 1e-3, border_type="replicate")
    expected = ycbcr_to_rgb(torch.cat((ycc[:, :1], painted), dim=1)).clamp(0, 1)
    found = purify(photo[..., :96, :80], 1.0, name="recolour", window_share=0.13)
    # The windows' means are continued differently at the border.
    torch.testing.assert_close(
        found[..., 12:-12, 12:-12], expected[..., 12:-12, 12:-12], atol=1e-3, rtol=0
    )


def test_screenshot_is_the_chain_of_pillow(photo):
    shown = to_pillow(photo).resize((96, 96), Image.Resampling.BILINEAR)
    expected = saved(shown, 85, "4:4:4").resize((240, 240), Image.Resampling.BICUBIC)
    assert levels_apart(purify(photo, 1.0, name="screenshot"), expected) < 1.0


def test_video_codec_severity_is_a_constant_rate_factor(photo):
    """x264's own promise: 6 steps of the factor are a factor of 2 in the quantiser's step."""
    grey = photo.mean(dim=1, keepdim=True).expand_as(photo)  # no loss by 4:2:0 chroma
    errors = []
    for crf in (20, 26, 32):
        coded = purify(grey, crf / 51, name="video_codec", largest_crf=51)
        errors.append(255 * (coded - grey).square().mean().sqrt().item())
    assert 1.2 < errors[1] / errors[0] < 2.2
    assert 1.2 < errors[2] / errors[1] < 2.2
    assert errors[0] < 5


@pytest.mark.parametrize("inner", ["noise", "resize", "jpeg"])
def test_at_the_models_size_the_change_of_a_large_photo_is_seen(inner: str) -> None:
    def seen(picture: np.ndarray) -> np.ndarray:
        return skimage.transform.resize(picture, (128, 128), 3, anti_aliasing=True)

    large = skimage.data.astronaut() / 255.0
    photo = torch.from_numpy(large).float().permute(2, 0, 1)[None]
    at_model_size, at_full_size = (
        seen(purify(photo, 0.5, **node)[0].permute(1, 2, 0).numpy()) - seen(large)
        for node in ({"name": "model_size", "inner": inner, "work_px": 128}, {"name": inner})
    )
    small = torch.from_numpy(seen(large)).float().permute(2, 0, 1)[None].clamp(0, 1)
    changed = purify(small, 0.5, name=inner)[0].permute(1, 2, 0).numpy() - seen(large)
    sizes = [255 * np.sqrt((x**2).mean()) for x in (at_full_size, at_model_size, changed)]
    assert sizes[1] > 2 * sizes[0]
    assert sizes[1] == pytest.approx(sizes[2], rel=0.4)  # enlarging and shrinking smooth a little
