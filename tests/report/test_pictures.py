import base64
import io

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms
from skimage import data

from anti_i2v_lit.report.pictures import CROP_PIXELS, photo_pictures


def decode(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def astronaut():
    return data.astronaut()


def test_the_residual_is_ten_times_the_difference_on_mid_grey(tmp_path, astronaut):
    photo = astronaut // 2 + 60
    cloak = photo.copy()
    cloak[:, :256, 0] += 8
    cloak[:, 256:, 2] -= 5
    pictures = photo_pictures(
        save(tmp_path / "p.png", photo), save(tmp_path / "c.png", cloak), with_crop=False
    )
    assert pictures.crop is None and not pictures.whole.problem
    residual = decode(pictures.whole.residual)
    assert residual.shape == (240, 240, 3)
    assert np.abs(residual[:, :100].mean((0, 1)) - (208, 128, 128)).max() < 2
    assert np.abs(residual[:, 140:].mean((0, 1)) - (128, 128, 78)).max() < 2
    shrunk = Image.fromarray(photo).resize((240, 240), Image.Resampling.LANCZOS)
    assert np.abs(decode(pictures.whole.photo) - np.asarray(shrunk)).mean() < 2


def test_the_crop_shows_the_strongest_change_pixel_for_pixel(tmp_path):
    photo = np.full((900, 1400, 3), 100, dtype=np.uint8)
    cloak = photo.copy()
    cloak[500:700, 900:1100, 1] += 12
    pictures = photo_pictures(
        save(tmp_path / "p.png", photo), save(tmp_path / "c.png", cloak), with_crop=True
    )
    residual = decode(pictures.crop.residual)
    assert residual.shape == (CROP_PIXELS, CROP_PIXELS, 3)
    changed = np.abs(residual[..., 1] - 248) < 10
    assert changed.sum() == pytest.approx(200 * 200, rel=0.05)


def test_a_photo_smaller_than_the_crop_is_shown_whole(tmp_path, astronaut):
    photo = astronaut[:50, :70]
    cloak = photo ^ 1
    pictures = photo_pictures(
        save(tmp_path / "p.png", photo), save(tmp_path / "c.png", cloak), with_crop=True
    )
    assert decode(pictures.crop.photo).shape == (50, 70, 3)
    assert decode(pictures.whole.photo).shape == (50, 70, 3)


def test_orientation_is_applied(tmp_path, astronaut):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = save(tmp_path / "p.jpg", astronaut[:300], exif=exif, quality=95)
    upright = decode(photo_pictures(stored, stored, with_crop=False).whole.photo)
    assert upright.shape[0] > upright.shape[1]
    turned = Image.fromarray(np.rot90(astronaut[:300], -1)).resize(upright.shape[1::-1])
    assert np.abs(upright - np.asarray(turned)).mean() < 6


def odd_formats():
    astronaut = data.astronaut()
    image = Image.fromarray(astronaut)
    alpha = Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 128)))
    return {
        "grey.png": (lambda p: image.convert("L").save(p), True),
        "grey16.png": (lambda p: Image.fromarray(astronaut[..., 0].astype("uint16") * 257).save(p),
                       True),
        "palette.png": (lambda p: image.quantize(64).save(p), False),
        "alpha.webp": (lambda p: alpha.save(p, lossless=True), False),
        "cmyk.jpg": (lambda p: image.convert("CMYK").save(p, quality=95), False),
        "rgb16.tif": (lambda p: tifffile.imwrite(p, astronaut.astype("uint16") * 257,
                                                 photometric="rgb"), False),
        "apple.heic": (lambda p: pillow_heif.from_pillow(image).save(p, quality=90), False),
        "profile.jpg": (lambda p: image.save(p, quality=95, icc_profile=ImageCms.ImageCmsProfile(
            ImageCms.createProfile("sRGB")).tobytes()), False),
    }  # fmt: skip


@pytest.mark.parametrize("name", odd_formats())
def test_odd_formats_are_shown(tmp_path, name):
    writer, is_grey = odd_formats()[name]
    writer(tmp_path / name)
    whole = photo_pictures(tmp_path / name, tmp_path / name, with_crop=False).whole
    assert not whole.problem
    shown = decode(whole.cloak)
    image = Image.fromarray(data.astronaut()[..., 0]) if name == "grey16.png" else Image.fromarray(
        data.astronaut()).convert("L" if is_grey else "RGB")  # fmt: skip
    expected = np.asarray(image.convert("RGB").resize((240, 240)), dtype=np.float64)
    assert np.abs(shown - expected).mean() < 12
    assert np.abs(decode(whole.residual) - 128).max() <= 2


def test_a_turned_tiff_of_16_bits_is_shown_upright(tmp_path, astronaut):
    tifffile.imwrite(
        tmp_path / "p.tif", astronaut[:300].astype("uint16") * 257, photometric="rgb",
        extratags=[(0x0112, "H", 1, 6, True)],
    )  # fmt: skip
    whole = photo_pictures(tmp_path / "p.tif", tmp_path / "p.tif", with_crop=False).whole
    upright = decode(whole.photo)
    turned = Image.fromarray(np.rot90(astronaut[:300], -1)).resize(upright.shape[1::-1])
    assert upright.shape[0] > upright.shape[1]
    assert np.abs(upright - np.asarray(turned)).mean() < 6


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not there"), (b"", "cannot be shown"), (b"rubbish", "cannot be shown")],
)
def test_a_photo_that_cannot_be_read_leaves_a_reason(tmp_path, astronaut, content, message):
    cloak = save(tmp_path / "c.png", astronaut)
    broken = tmp_path / "broken.jpg"
    if content is not None:
        broken.write_bytes(content)
    for source, output in ((broken, cloak), (cloak, broken)):
        whole = photo_pictures(source, output, with_crop=True).whole
        assert message in whole.problem and "broken.jpg" in whole.problem
        assert whole.residual == ""
        assert bool(whole.photo) == (source == cloak) and bool(whole.cloak) == (output == cloak)
    assert "original is not there" in photo_pictures(None, cloak, with_crop=True).whole.problem


def test_a_truncated_photo_leaves_a_reason(tmp_path, astronaut):
    whole = save(tmp_path / "p.jpg", astronaut).read_bytes()
    (tmp_path / "p.jpg").write_bytes(whole[: len(whole) // 2])
    cloak = save(tmp_path / "c.png", astronaut)
    assert "p.jpg" in photo_pictures(tmp_path / "p.jpg", cloak, with_crop=True).whole.problem


def test_other_sizes_give_no_residual(tmp_path, astronaut):
    photo = save(tmp_path / "p.png", astronaut)
    cloak = save(tmp_path / "c.png", astronaut[:100])
    whole = photo_pictures(photo, cloak, with_crop=True).whole
    assert whole.photo and whole.cloak and not whole.residual and "differ in size" in whole.problem


def test_a_residual_like_noise_can_be_shown(tmp_path):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
    after = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(before).save(tmp_path / "a.png")
    Image.fromarray(after).save(tmp_path / "b.png")
    found = photo_pictures(tmp_path / "a.png", tmp_path / "b.png", with_crop=True)
    assert not found.whole.problem and found.crop is not None
    assert found.crop.residual.startswith("data:image/jpeg;base64,")


def test_photos_above_pillows_limit_are_shown(tmp_path, astronaut, monkeypatch):
    """Phones write 200 megapixels, which Pillow takes for a bomb; the limit is set lower here."""
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    seen = photo_pictures(tmp_path / "a.png", tmp_path / "a.png", with_crop=False)
    assert seen.whole.problem == "" and seen.whole.photo
