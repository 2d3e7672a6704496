"""ICC profiles in floating point: from a photo's own values to sRGB-encoded ones and back.

Matrix/TRC profiles (ICC.1:2022, section 8.3) are evaluated directly, because Pillow's colour
management works on 8-bit values only, which would round away most of a small residual.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anti_i2v_lit.checks import PhotoFailure

Floats = NDArray[np.float32]

# Linear sRGB to XYZ at D50 (Bradford), the colorants of the ICC's own sRGB profiles.
_SRGB_TO_XYZ_D50 = np.array(
    [
        [0.4360657, 0.3851515, 0.1430784],
        [0.2224932, 0.7168870, 0.0606169],
        [0.0139160, 0.0970764, 0.7140961],
    ]
)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])
_PURE_POWER = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_CHANNEL_TAGS = ((b"rXYZ", b"rTRC"), (b"gXYZ", b"gTRC"), (b"bXYZ", b"bTRC"))


@dataclass(frozen=True, eq=False)
class Curve:
    """One tone curve, encoded value to linear light, as ICC "curv" or "para".

    Attributes:
        parameters: g, a, b, c, d, e, f of `(a x + b)^g + e` for x >= d, else `c x + f`.
        table: linear values at equal steps of the encoded value; replaces the parameters.
    """

    parameters: tuple[float, ...] = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    table: Floats | None = None

    def decode(self, encoded: Floats) -> Floats:
        """Encoded values to linear light; negative values by odd symmetry."""
        size = np.abs(encoded)
        if self.table is not None:
            steps = np.linspace(0, 1, len(self.table), dtype=np.float32)
            linear = np.interp(size, steps, self.table)
        elif self.parameters[1:] == _PURE_POWER:
            linear = np.power(size, self.parameters[0])
        else:
            g, a, b, c, d, e, f = self.parameters
            curved = np.power(np.maximum(a * size + b, 0), g) + e
            linear = np.where(size >= d, curved, c * size + f)
        return np.copysign(linear, encoded).astype(np.float32)

    def encode(self, linear: Floats) -> Floats:
        """Linear light to encoded values, the inverse of `decode`."""
        size = np.abs(linear)
        if self.table is not None:
            rising = np.maximum.accumulate(self.table)
            steps = np.linspace(0, 1, len(rising), dtype=np.float32)
            encoded = np.interp(size, rising, steps)
        elif self.parameters[1:] == _PURE_POWER:
            encoded = np.power(size, 1 / self.parameters[0])
        else:
            g, a, b, c, d, e, f = self.parameters
            curved = (np.power(np.maximum(size - e, 0), 1 / g) - b) / a
            straight = (size - f) / c if c else np.zeros_like(size)
            threshold = max(a * d + b, 0.0) ** g + e
            encoded = np.maximum(np.where(size >= threshold, curved, straight), 0)
        return np.copysign(encoded, linear).astype(np.float32)


SRGB_CURVE = Curve((2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0))


@dataclass(frozen=True, eq=False)
class ColourProfile:
    """How a photo's own values relate to sRGB.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        curves: one tone curve per channel; empty: the values are sRGB-encoded already.
        to_linear_srgb: 3x3, the photo's linear RGB to linear sRGB; None for grey.
    """

    channels: int
    curves: tuple[Curve, ...] = ()
    to_linear_srgb: NDArray[np.float64] | None = None

    @property
    def is_srgb(self) -> bool:
        """Whether the photo's own values are the sRGB-encoded values."""
        return not self.curves

    def to_srgb(self, own: Floats) -> Floats:
        """Own values [..., C] in [0, 1] to sRGB-encoded [..., C]; may leave [0, 1]."""
        if self.is_srgb:
            return own
        planes = [c.decode(own[..., i]) for i, c in enumerate(self.curves)]
        linear = np.stack(planes, axis=-1)
        if self.to_linear_srgb is not None:
            linear = linear @ self.to_linear_srgb.T.astype(np.float32)
        return SRGB_CURVE.encode(linear)

    def from_srgb(self, encoded: Floats) -> Floats:
        """sRGB-encoded values [..., C] to the photo's own values, unclipped."""
        if self.is_srgb:
            return encoded
        linear = SRGB_CURVE.decode(encoded)
        if self.to_linear_srgb is not None:
            linear = linear @ np.linalg.inv(self.to_linear_srgb).T.astype(np.float32)
        planes = [c.encode(linear[..., i]) for i, c in enumerate(self.curves)]
        return np.stack(planes, axis=-1)


def srgb_profile(channels: int) -> ColourProfile:
    """The profile of a photo that names none: its values are sRGB."""
    return ColourProfile(channels)


def profile_from_icc(icc: bytes | None, channels: int) -> ColourProfile:
    """Parse an embedded profile.

    A profile for another number of channels is ignored, as every viewer does.

    Raises:
        PhotoFailure: the profile is damaged or is a lookup table without a matrix.
    """
    if not icc:
        return srgb_profile(channels)
    try:
        return _parse_icc(icc, channels)
    except (struct.error, ValueError, IndexError, KeyError, np.linalg.LinAlgError) as error:
        if isinstance(error, PhotoFailure):
            raise
        raise PhotoFailure(
            f"the embedded ICC colour profile is damaged ({error}); "
            "convert the photo to sRGB or remove the profile"
        ) from error


def profile_from_chromaticities(
    gamma: float, white: tuple[float, float], primaries: tuple[tuple[float, float], ...]
) -> ColourProfile:
    """Profile of PNG's gAMA and cHRM chunks (PNG specification, 11.3.2).

    Args:
        gamma: file exponent, about 0.45455 for sRGB-like files.
        white: xy of the white point.
        primaries: xy of red, green and blue.

    Raises:
        PhotoFailure: chromaticities that span no colour space.
    """
    if not 0.05 <= gamma <= 20 or min(white[1], *(p[1] for p in primaries)) <= 0:
        raise PhotoFailure("the PNG gAMA or cHRM chunk holds impossible values")
    tone = Curve((1 / gamma, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    if abs(gamma - 1 / 2.2) < 0.01:  # what every sRGB writer puts there
        tone = SRGB_CURVE
    matrix = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    white_xyz = np.array([white[0] / white[1], 1.0, (1 - sum(white)) / white[1]])
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white_xyz))
    try:
        scaled = matrix * np.linalg.solve(matrix, white_xyz)
    except np.linalg.LinAlgError as error:
        raise PhotoFailure("the PNG cHRM chunk holds impossible values") from error
    to_d50 = np.linalg.solve(_BRADFORD, cones @ _BRADFORD @ scaled)
    return _simplified(ColourProfile(3, (tone,) * 3, np.linalg.solve(_SRGB_TO_XYZ_D50, to_d50)))


def _parse_icc(icc: bytes, channels: int) -> ColourProfile:
    space, connection = icc[16:20], icc[20:24]
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ValueError("no ICC signature")
    if space != (b"RGB " if channels == 3 else b"GRAY"):
        return srgb_profile(channels)
    tags = _tag_table(icc)
    if channels == 1:
        if b"kTRC" not in tags:
            raise _lookup_table()
        return _simplified(ColourProfile(1, (_curve(tags[b"kTRC"]),)))
    if connection != b"XYZ " or any(t not in tags for pair in _CHANNEL_TAGS for t in pair):
        raise _lookup_table()
    columns = [_xyz(tags[colorant]) for colorant, _ in _CHANNEL_TAGS]
    curves = tuple(_curve(tags[tone]) for _, tone in _CHANNEL_TAGS)
    matrix = np.linalg.solve(_SRGB_TO_XYZ_D50, np.array(columns).T)
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("its primaries span no colour space")
    return _simplified(ColourProfile(3, curves, matrix))


def _lookup_table() -> PhotoFailure:
    return PhotoFailure(
        "the embedded ICC colour profile is a lookup table (scanner, printer or Lab profile) "
        "that cannot be inverted exactly; convert the photo to sRGB, Display P3 or Adobe RGB"
    )


def _simplified(profile: ColourProfile) -> ColourProfile:
    """Return the plain sRGB profile if this one agrees with it to 1.5 grey levels.

    Rounding of the colorants alone makes 0.8 between published sRGB profiles; a plain gamma of
    2.2 is 8 levels away.
    """
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    probe = ramp
    if profile.channels == 3:  # greys and the three primaries
        rows = np.concatenate([np.ones((1, 3)), np.eye(3)]).astype(np.float32)
        probe = (ramp[:, None] * rows).reshape(-1, 3)
    difference = np.abs(profile.to_srgb(probe) - probe).max()
    return srgb_profile(profile.channels) if difference < 1.5 / 255 else profile


def _tag_table(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > 200:
        raise ValueError(f"{count} tags")
    tags = {}
    for i in range(count):
        name, offset, length = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        tags[name] = icc[offset : offset + length]
    return tags


def _xyz(tag: bytes) -> tuple[float, float, float]:
    x, y, z = struct.unpack_from(">3i", tag, 8)
    return x / 65536, y / 65536, z / 65536


def _curve(tag: bytes) -> Curve:
    kind = tag[:4]
    if kind == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return Curve()
        if count == 1:
            gamma = struct.unpack_from(">H", tag, 12)[0] / 256
            return _checked_curve((gamma, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
        table = np.frombuffer(tag, ">u2", count, 12).astype(np.float32)
        return Curve(table=table / np.float32(65535))
    if kind == b"para":
        return _parametric(tag)
    raise ValueError(f"unknown tone curve {kind!r}")


def _parametric(tag: bytes) -> Curve:
    (function,) = struct.unpack_from(">H", tag, 8)
    counts = (1, 3, 4, 5, 7)
    if function >= len(counts):
        raise ValueError(f"unknown tone curve type {function}")
    p = [v / 65536 for v in struct.unpack_from(f">{counts[function]}i", tag, 12)]
    g = p[0]
    a, b = (p[1], p[2]) if function > 0 else (1.0, 0.0)
    if function == 0:
        return _checked_curve((g, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    if function in (1, 2):
        offset = p[3] if function == 2 else 0.0
        return _checked_curve((g, a, b, 0.0, -b / a if a else 0.0, offset, offset))
    e, f = (p[5], p[6]) if function == 4 else (0.0, 0.0)
    return _checked_curve((g, a, b, p[3], p[4], e, f))


def _checked_curve(parameters: tuple[float, ...]) -> Curve:
    if parameters[0] <= 0 or parameters[1] <= 0:
        raise ValueError("a tone curve that does not rise")
    return Curve(parameters)
