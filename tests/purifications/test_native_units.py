"""What a severity means in native units, against Pillow, scipy and scikit-image."""

import io

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import torch
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
