"""A picture's colours as sRGB, whatever its file tells them by.

Every way of telling becomes an ICC profile, and LittleCMS does the rest: a profile inside the file, code points (ITU-T
H.273: `nclx` in HEIF and AVIF, `cICP` in PNG, a tag of newer profiles), numbers (PNG's `gAMA` and `cHRM`, TIFF's
primaries), or EXIF's word for Adobe RGB.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

Array = NDArray[np.float64]
Primaries = tuple[float, ...]
"""x, y of white, red, green and blue (CIE 1931)."""

SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB, _ADOBE_GAMMA = (*SRGB[:4], 0.21, 0.71, 0.15, 0.06), 563 / 256
_PRIMARIES: dict[int, Primaries] = {
    1: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # NTSC of 1953
    5: (*SRGB[:2], 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # PAL
    6: (*SRGB[:2], 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # NTSC
    7: (*SRGB[:2], 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*SRGB[:2], 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI-P3
    12: (*SRGB[:2], 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_UNSPECIFIED = 2
# Light that a signal in 0..1 stands for, 1 for white.
_WHITE = 203  # cd/m² of white paper in HDR (ITU-R BT.2408)
_KNEE = 0.6  # of white: what is darker stays as it is


class UnknownColours(Exception):
    """What the file says of its colours is not understood; the message says what."""


def from_code_points(primaries: int, transfer: int, *, full_range: bool = True) -> bytes | None:
    """Give the profile of H.273's code points; None where they are sRGB's, or unspecified.

    Raises:
        UnknownColours: a code that is not known here.
    """
    primaries = 1 if primaries == _UNSPECIFIED else primaries
    transfer = 13 if transfer == _UNSPECIFIED else transfer
    if primaries not in _PRIMARIES or transfer not in _LIGHT or not full_range:
        raise UnknownColours(f"primaries {primaries}, transfer {transfer}" + ("" if full_range else ", narrow range"))
    if primaries == 1 and transfer in _BT709:
        return None  # shown as sRGB everywhere, although its curve is another one
    return _profile(_PRIMARIES[primaries], _LIGHT[transfer])


def from_numbers(primaries: Primaries | None, gamma: float | None) -> bytes:
    """Give the profile of primaries and of a curve `signal ** gamma`; sRGB's where one is not told.

    Raises:
        UnknownColours: numbers that no colours have.
    """
    if gamma is not None and not 0.1 <= gamma <= 10:
        raise UnknownColours(f"gamma {gamma:.4g}")
    return _profile(primaries or SRGB, _srgb if gamma is None else lambda signal: signal**gamma)


def adobe_rgb() -> bytes:
    """Give the profile of Adobe RGB (1998)."""
    return from_numbers(_ADOBE_RGB, _ADOBE_GAMMA)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Give the colours that a profile means as RGB.

    Args:
        image: RGB, L or CMYK.
        profile: None where there is none.

    Raises:
        UnknownColours: the profile is damaged or of another kind of picture.
    """
    if profile is None:
        return image.convert("RGB")
    profile = _hdr(profile) or profile
    if image.mode == "L" and profile[16:20] == b"RGB ":
        image = image.convert("RGB")  # grey is a colour too
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        if image.mode != "CMYK":  # sRGB's own profile would still change a level here and there
            ramp = Image.linear_gradient("L").resize((32, 32))
            probe = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).convert(image.mode)
            moved = ImageChops.difference(transform.apply(probe), probe.convert("RGB"))
            if np.asarray(moved).max() <= 2:
                return image.convert("RGB")
        return transform.apply(image)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        raise UnknownColours(f"a profile that cannot be used ({error})") from None


def _hdr(profile: bytes) -> bytes | None:
    """Give our own profile for one whose tag `cicp` says PQ or HLG: LittleCMS knows no brighter than white."""
    for i in range(min(int.from_bytes(profile[128:132], "big"), 100)):
        name, start = profile[132 + 12 * i : 136 + 12 * i], int.from_bytes(profile[136 + 12 * i : 140 + 12 * i], "big")
        if name == b"cicp" and len(profile) >= start + 12 and profile[start + 9] in (16, 18):
            return from_code_points(profile[start + 8], profile[start + 9])
    return None


def _srgb(signal: Array) -> Array:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _bt709(signal: Array) -> Array:
    return np.where(signal < 0.081, signal / 4.5, ((signal + 0.099) / 1.099) ** (1 / 0.45))


def _pq(signal: Array) -> Array:
    """SMPTE ST 2084, with what is brighter than white compressed."""
    root = signal ** (1 / 78.84375)
    return _compress(
        10_000 / _WHITE * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    )


def _hlg(signal: Array) -> Array:
    """ARIB STD-B67 on a display of 1,000 cd/m², with what is brighter than white compressed."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return _compress(1_000 / _WHITE * scene**1.2)


def _compress(light: Array) -> Array:
    """Leave light as it is up to the knee; above, it nears 1 ever more slowly (white itself is shown at 0.85)."""
    above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.minimum(light, _KNEE) + (1 - _KNEE) * (1 - np.exp(-above))


_BT709 = (1, 6, 13, 14, 15)
_LIGHT: dict[int, Callable[[Array], Array]] = {
    1: _bt709,
    4: lambda signal: signal**2.2,
    5: lambda signal: signal**2.8,
    6: _bt709,
    8: lambda signal: signal,
    13: _srgb,
    14: _bt709,
    15: _bt709,
    16: _pq,
    18: _hlg,
}


def _profile(primaries: Primaries, light: Callable[[Array], Array]) -> bytes:
    """Write a display profile of three primaries and one curve (ICC.1:2001-04)."""
    xy = np.array(primaries).reshape(4, 2)
    if not (np.isfinite(xy).all() and (xy[:, 1] > 0.001).all() and (np.abs(xy) <= 2).all()):
        raise UnknownColours(f"primaries {primaries}")
    white, *colours = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])  # XYZ, of Y = 1
    try:
        columns = np.column_stack(colours) * np.linalg.solve(np.column_stack(colours), white)  # together they are white
    except np.linalg.LinAlgError:
        raise UnknownColours(f"primaries {primaries}") from None
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])  # Bradford
    d50 = np.array([0.9642, 1.0, 0.8249])
    columns = np.linalg.inv(cone) @ np.diag((cone @ d50) / (cone @ white)) @ cone @ columns

    def xyz(value: Array) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * part) for part in value))

    curve = np.rint(65535 * np.clip(light(np.linspace(0, 1, 4096)), 0, 1)).astype(">u2").tobytes()
    bodies = [xyz(d50), *(xyz(column) for column in columns.T), b"curv\0\0\0\0" + struct.pack(">I", 4096) + curve]
    tags = {b"wtpt": 0, b"rXYZ": 1, b"gXYZ": 2, b"bXYZ": 3, b"rTRC": 4, b"gTRC": 4, b"bTRC": 4}
    starts = [132 + 12 * len(tags) + 20 * i for i in range(5)]
    table = b"".join(name + struct.pack(">II", starts[i], len(bodies[i])) for name, i in tags.items())
    content = struct.pack(">I", len(tags)) + table + b"".join(bodies)
    head = struct.pack(">II4s4s4s4s", 128 + len(content), 0, b"\2\x40\0\0", b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(65536 * part) for part in d50)) + bytes(48)
    return head + content
