"""Profiles against littlecms (8 bit) and against each other."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.colour_profile import (
    SRGB_CURVE,
    Curve,
    profile_from_chromaticities,
    profile_from_icc,
)

WIDE = ["DisplayP3-v4", "AdobeCompat-v4", "ProPhoto-v4", "Rec2020-v4"]


def littlecms_to_srgb(own: np.ndarray, profile: bytes) -> np.ndarray:
    image = ImageCms.profileToProfile(
        Image.fromarray(own),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.NOOPTIMIZE,
    )
    assert image is not None
    return np.asarray(image)


def built_icc(curve: bytes, space: bytes = b"RGB ", connection: bytes = b"XYZ ") -> bytes:
    """A profile with the sRGB primaries and one tone curve for every channel."""
    columns = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
    tags = {}
    for name, column in zip("rgb", columns, strict=True):
        fixed = struct.pack(">3i", *(round(v * 65536) for v in column))
        tags[f"{name}XYZ".encode()] = b"XYZ \0\0\0\0" + fixed
        tags[f"{name}TRC".encode()] = curve
    if space == b"GRAY":
        tags = {b"kTRC": curve}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name_, payload in tags.items():
        payload += b"\0" * (-len(payload) % 4)
        table += struct.pack(">4sII", name_, start + len(body), len(payload))
        body += payload
    header = struct.pack(">I", start + len(body)) + b"lcms" + struct.pack(">I", 0x02400000)
    header += b"mntr" + space + connection + b"\0" * 12 + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def para(function: int, *values: float) -> bytes:
    fixed = struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))
    return b"para\0\0\0\0" + struct.pack(">HH", function, 0) + fixed


def table(values: np.ndarray) -> bytes:
    entries = np.round(values * 65535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + entries


SRGB_PARA = para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
CURVES = {
    "gamma 1": b"curv\0\0\0\0\0\0\0\0",
    "gamma 2.2": b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(2.2 * 256)),
    "table": table(np.linspace(0, 1, 1024) ** 1.8),
    "type 0": para(0, 1.8),
    "type 1": para(1, 2.2, 0.95, 0.05),
    "type 2": para(2, 2.0, 0.9, 0.05, 0.02),
    "type 4": para(4, 2.4, 0.9, 0.05, 0.08, 0.04, 0.01, 0.0),
}


@pytest.mark.parametrize("name", WIDE)
def test_view_agrees_with_littlecms(name, pixels, icc):
    profile = profile_from_icc(icc(name), 3)
    assert not profile.is_srgb
    ours = np.clip(profile.to_srgb(pixels.astype(np.float32) / 255), 0, 1) * 255
    difference = np.abs(ours - littlecms_to_srgb(pixels, icc(name)))
    assert difference.max() <= 1.0
    assert difference.mean() <= 0.3  # rounding to 8 bits alone is 0.25


@pytest.mark.parametrize("name", CURVES)
def test_every_kind_of_curve_agrees_with_littlecms(name, pixels):
    profile = built_icc(CURVES[name])
    ours = np.clip(profile_from_icc(profile, 3).to_srgb(pixels.astype(np.float32) / 255), 0, 1)
    assert np.abs(ours * 255 - littlecms_to_srgb(pixels, profile)).max() <= 1.0


@pytest.mark.parametrize("name", CURVES)
def test_grey_curves_agree_with_littlecms(name):
    ramp = np.arange(256, dtype=np.uint8)[None]
    profile = built_icc(CURVES[name], space=b"GRAY")
    ours = profile_from_icc(profile, 1).to_srgb(ramp[..., None].astype(np.float32) / 255)
    image = ImageCms.profileToProfile(
        Image.fromarray(ramp),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.NOOPTIMIZE,
    )
    assert np.abs(np.clip(ours, 0, 1) * 255 - np.asarray(image)[..., :1]).max() <= 1.0


@pytest.mark.parametrize("name", WIDE)
def test_there_and_back(name, icc):
    profile = profile_from_icc(icc(name), 3)
    own = np.random.default_rng(0).random((500, 3), dtype=np.float32)
    assert np.abs(profile.from_srgb(profile.to_srgb(own)) - own).max() < 1e-4


@pytest.mark.parametrize("curve", [SRGB_CURVE, Curve((2.2, 1, 0, 0, 0, 0, 0))])
def test_curves_are_odd_and_invertible_beyond_the_range(curve):
    x = np.linspace(-0.5, 1.5, 401, dtype=np.float32)
    assert np.abs(curve.encode(curve.decode(x)) - x).max() < 1e-5
    assert np.allclose(curve.decode(-x), -curve.decode(x))


def test_profiles_that_say_srgb_are_the_identity(icc):
    assert profile_from_icc(icc("sRGB-v4"), 3).is_srgb
    assert profile_from_icc(built_icc(SRGB_PARA), 3).is_srgb
    created = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert profile_from_icc(created.tobytes(), 3).is_srgb
    assert profile_from_icc(None, 3).is_srgb


def test_a_profile_for_other_channels_is_ignored():
    assert profile_from_icc(built_icc(CURVES["gamma 1"]), 1).is_srgb
    assert profile_from_icc(built_icc(CURVES["gamma 1"], space=b"GRAY"), 3).is_srgb


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (built_icc(CURVES["gamma 1"], connection=b"Lab "), "lookup table"),
        (built_icc(CURVES["gamma 1"])[:150], "damaged"),
        (b"not a profile", "damaged"),
        (built_icc(b"xxxx" + CURVES["gamma 1"][4:]), "unknown tone curve"),
        (built_icc(para(0, -1.0)), "does not rise"),
    ],
)
def test_unusable_profiles_are_refused(profile, reason):
    with pytest.raises(PhotoFailure, match=reason):
        profile_from_icc(profile, 3)


def test_png_chromaticities_agree_with_the_icc_profile_of_the_same_space(icc):
    adobe = profile_from_icc(icc("AdobeCompat-v4"), 3)
    primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
    same = profile_from_chromaticities(256 / 563, (0.3127, 0.3290), primaries)
    own = np.random.default_rng(0).random((500, 3), dtype=np.float32)
    inside = np.clip(adobe.to_srgb(own), 0, 1) - np.clip(
        # 1/2.2 within a hundredth is read as the sRGB curve, so compare the matrices alone
        (lambda p: p.to_srgb(own))(type(adobe)(3, adobe.curves, same.to_linear_srgb)),
        0,
        1,
    )
    assert np.abs(inside).max() < 2e-3
    srgb = profile_from_chromaticities(
        0.45455, (0.3127, 0.3290), ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
    )
    assert srgb.is_srgb


def test_impossible_chromaticities_are_refused():
    with pytest.raises(PhotoFailure, match="cHRM"):
        profile_from_chromaticities(0.45455, (0.3, 0.3), ((0.3, 0.3),) * 3)
    with pytest.raises(PhotoFailure, match="impossible"):
        profile_from_chromaticities(0.0, (0.3, 0.3), ((0.6, 0.3), (0.3, 0.6), (0.1, 0.1)))
