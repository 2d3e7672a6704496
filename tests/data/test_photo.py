"""The sRGB view and the arithmetic of adding a residual."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from anti_i2v_lit.data.picture import to_stored, to_upright

P3 = "DisplayP3-v4"


def png(path: Path, pixels: np.ndarray, **settings) -> Path:
    Image.fromarray(pixels).save(path, **settings)
    return path


@pytest.fixture
def plain(tmp_path, pixels, read):
    return read(png(tmp_path / "plain.png", pixels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_pillow(orientation, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    upright = to_upright(pixels, orientation)
    assert np.array_equal(upright, expected)
    assert np.array_equal(to_stored(upright, orientation), pixels)


def test_view_of_an_srgb_photo_is_its_values(plain, pixels):
    view = plain.srgb()
    assert view.dtype == torch.float32 and view.shape == (3, *plain.size) == (3, *pixels.shape[:2])
    assert torch.equal((view * 255).round().byte(), torch.from_numpy(pixels).permute(2, 0, 1))


def test_residual_is_added_rounded_and_clamped(plain, pixels):
    residual = torch.zeros(3, *plain.size)
    residual[0, 0, 0], residual[1, 0, 0], residual[2, 0, 0] = 3.6 / 255, -3.6 / 255, 40 / 255
    after = plain.changed(residual, 16).picture.samples.astype(int) - pixels
    assert after[0, 0].tolist() == [4, -4, 16]
    after[0, 0] = 0
    assert not after.any()


@pytest.mark.parametrize("budget", [0.0, 0.5, 1.0, 7.9, 16.0])
def test_no_sample_leaves_the_budget(plain, noise, budget):
    changed = plain.changed(noise(plain.size, 20), budget)
    assert changed.max_change_8bit(plain) == plain.max_change_8bit(changed) == int(budget)


@pytest.mark.parametrize("profile", [None, P3, "AdobeCompat-v4", "ProPhoto-v4", "Rec2020-v4"])
def test_zero_residual_changes_nothing_and_the_budget_holds(
    profile, tmp_path, pixels, read, noise, icc
):
    settings = {"icc_profile": icc(profile)} if profile else {}
    photo = read(png(tmp_path / "wide.png", pixels, **settings))
    residual = noise(photo.size, 12)
    residual[:, : photo.size[0] // 2] = 0
    changed = photo.changed(residual, 8)
    half = photo.size[0] // 2
    assert np.array_equal(changed.picture.samples[:half], pixels[:half])
    assert 0 < changed.max_change_8bit(photo) <= 8


@pytest.mark.parametrize("profile", [P3, "AdobeCompat-v4", "Rec2020-v4"])
def test_change_seen_through_littlecms_is_the_residual(profile, tmp_path, pixels, read, icc, noise):
    """In 8-bit sRGB the change must be the asked one, up to the rounding of both files."""

    def seen(samples: np.ndarray) -> np.ndarray:
        image = ImageCms.profileToProfile(
            Image.fromarray(samples),
            ImageCms.ImageCmsProfile(io.BytesIO(icc(profile))),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.NOOPTIMIZE,
        )
        return np.asarray(image).astype(float)

    soft = 128 + (pixels.astype(float) - 128) * 0.4  # inside the sRGB gamut, nothing clipped
    soft = soft.round().astype(np.uint8)
    photo = read(png(tmp_path / "wide.png", soft, icc_profile=icc(profile)))
    residual = noise(photo.size, 6).roll(1)
    residual = torch.nn.functional.avg_pool2d(residual, 5, 1, 2) * 4
    change = seen(photo.changed(residual, 16).picture.samples) - seen(soft)
    asked = residual.permute(1, 2, 0).numpy() * 255
    assert np.abs(change - asked).mean() < 0.7
    slope = (change * asked).sum() / (asked**2).sum()
    assert abs(slope - 1) < 0.03


def test_the_view_is_upright_and_the_change_is_where_it_was_seen(tmp_path, pixels, read):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read(png(tmp_path / "turned.png", pixels, exif=exif))
    assert photo.size == pixels.shape[1::-1]
    upright = np.asarray(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal((photo.srgb() * 255).round().byte().permute(1, 2, 0).numpy(), upright)
    residual = torch.zeros(3, *photo.size)
    residual[:, 3, 7] = 5 / 255
    change = photo.changed(residual, 16).picture.samples.astype(int) - pixels
    assert np.array_equal(np.argwhere(change.any(axis=-1)), [[pixels.shape[0] - 1 - 7, 3]])


def test_grey_stays_grey_and_takes_the_luminance(tmp_path, pixels, read):
    photo = read(png(tmp_path / "grey.png", pixels[..., 0]))
    view = photo.srgb()
    assert photo.is_grey and torch.equal(view[0], view[1]) and torch.equal(view[1], view[2])
    residual = torch.zeros(3, *photo.size)
    residual[0] = 10 / 255  # red: 0.2126 of the luminance
    changed = photo.changed(residual, 16)
    change = changed.picture.samples[..., 0].astype(int) - pixels[..., 0]
    assert (change == 2).all()


def test_alpha_and_invisible_pixels_stay(tmp_path, pixels, alpha, read, noise):
    photo = read(png(tmp_path / "alpha.png", np.dstack([pixels, alpha])))
    changed = photo.changed(noise(photo.size, 9), 16).picture
    assert np.array_equal(changed.alpha, alpha)
    moved = (changed.samples != pixels).any(axis=-1)
    assert not moved[alpha == 0].any() and moved[alpha > 0].all()


def test_colour_key_is_neither_left_nor_entered(tmp_path, pixels, read):
    pixels[0, 0], pixels[0, 1] = (50, 60, 70), (50, 60, 69)
    photo = read(png(tmp_path / "key.png", pixels, transparency=(50, 60, 70)))
    residual = torch.zeros(3, *photo.size)
    residual[2] = 1 / 255
    after = photo.changed(residual, 16).picture.samples
    assert after[0, 0].tolist() == [50, 60, 70] and after[0, 1].tolist() == [50, 60, 69]
    assert (after[1:, :, 2] == pixels[1:, :, 2] + 1).sum() > 0.9 * pixels[1:, :, 2].size


def test_wrong_residuals_are_refused(plain):
    with pytest.raises(ValueError, match="expected"):
        plain.changed(torch.zeros(3, 5, 5), 16)
    bad = torch.zeros(3, *plain.size)
    bad[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        plain.changed(bad, 16)
    with pytest.raises(ValueError, match="budget"):
        plain.changed(torch.zeros(3, *plain.size), -1)


def test_photos_of_other_shapes_are_not_compared(tmp_path, plain, pixels, read):
    other = read(png(tmp_path / "other.png", pixels[:50]))
    with pytest.raises(ValueError, match="cannot compare"):
        plain.max_change_8bit(other)
