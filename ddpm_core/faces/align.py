"""The part of a picture that the model is to see: a square, upright, framed as in CelebA-HQ."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpm_core.domain import Domain
from ddpm_core.errors import InvalidInput
from ddpm_core.faces.decode import MIN_SIDE, Picture
from ddpm_core.faces.find import Face, FaceFinder

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
Box = tuple[float, float, float, float]

ALIGN_ALLOWED = "auto, center, none, or a box left,top,right,bottom in pixels of the upright picture"


@dataclass(frozen=True)
class Target:
    """An aligned selfie. Coordinates are in pixels of the full upright picture and may lie outside it.

    Attributes:
        pixels: (size, size, 3) uint8 RGB.
        box: left, top, right, bottom around the crop.
        quad: the crop's corners: upper left, lower left, lower right, upper right.
        faces: the faces found, largest first; empty when none was looked for.
        face: the index of the chosen face, or None.
        warnings: (code, message) of what was done otherwise than asked.
        has_face: whether a face of the model's domain was found; None where none was looked for.
    """

    pixels: NDArray[np.uint8]
    box: Box
    quad: Quad
    faces: tuple[Face, ...] = ()
    face: int | None = None
    warnings: tuple[tuple[str, str], ...] = ()
    has_face: bool | None = None


def align(picture: Picture, size: int, finder: FaceFinder, *, align: str = "auto", face: int | None = None) -> Target:
    """Cut the model's target out of a picture.

    Args:
        picture: a decoded upload.
        size: the model's image side in pixels.
        finder: finds the faces of the model's domain.
        align: `auto` turns and frames a face as in CelebA-HQ; `center` takes the largest square in the middle;
            `none` takes a square picture as it is (one that is not square is cut as `center`, with a warning);
            `left,top,right,bottom` takes that box, or the largest square in its middle: nothing is squashed.
        face: which of the faces found, for `auto`; the largest when None.

    Raises:
        InvalidInput: unknown_value or out_of_range, field `align` or `face`.
    """
    notes = list(picture.warnings)
    if align == "auto":
        return _align_face(picture, size, finder, face, notes)
    if face is not None:
        raise InvalidInput(
            "out_of_range",
            f"No faces are looked for with align {align!r}.",
            field="face",
            given=face,
            allowed="with align=auto only",
        )
    if align not in ("center", "none"):
        return _crop(picture, size, _parse_box(align, picture), notes)
    if align == "none" and picture.width != picture.height:
        notes.append(("not_square", "The picture is not square: its middle is used."))
    return _crop(picture, size, (0, 0, picture.width, picture.height), notes)


def face_quad(face: Face) -> Quad:
    """Give a face's CelebA-HQ square from eyes and mouth, from the eyes alone, or from its box (docs/methods.md)."""
    if face.left_eye is None or face.right_eye is None:
        left, top, right, _ = face.box
        x, y = np.array([1.55 / 2 * (right - left), 0.0]), np.array([0.0, 1.55 / 2 * (right - left)])
        center = np.array([(left + right) / 2, top + 0.43 * (right - left)])
    else:
        left_eye, right_eye = np.array(face.left_eye), np.array(face.right_eye)
        eyes, across = (left_eye + right_eye) / 2, right_eye - left_eye
        if face.mouth is None:
            x, y = 2 * across, 2 * _quarter_turn(across)
            center = eyes + 0.11 * _quarter_turn(across)
        else:
            down = np.array(face.mouth) - eyes
            x = across - _quarter_turn(down)
            x *= max(2.0 * math.hypot(*across), 1.8 * math.hypot(*down)) / math.hypot(*x)
            y = _quarter_turn(x)
            center = eyes + 0.1 * down
    corners = (center - x - y, center - x + y, center + x + y, center + x - y)
    a, b, c, d = ((float(px), float(py)) for px, py in corners)
    return a, b, c, d


def _align_face(
    picture: Picture, size: int, finder: FaceFinder, face: int | None, notes: list[tuple[str, str]]
) -> Target:
    faces = finder.find(picture)
    if face is not None and not 0 <= face < len(faces):
        raise InvalidInput(
            "out_of_range",
            f"There is no face {face}: {len(faces)} found.",
            field="face",
            given=face,
            allowed=f"0..{len(faces) - 1}" if faces else "none: no face was found",
        )
    if not faces:
        if finder.domain != "any":
            notes.append(("no_face", "No face was found: the middle of the picture is used."))
        cropped = _crop(picture, size, (0, 0, picture.width, picture.height), notes)
        return replace(cropped, has_face=None if finder.domain == "any" else False)
    if face is None and len(faces) > 1:
        notes.append(("several_faces", f"{len(faces)} faces were found: the largest is used; choose another by face."))
    chosen = faces[face or 0]
    is_animal = finder.domain is Domain.HUMAN_FACE and chosen.kind != "human"
    if is_animal:
        notes.append(("animal_face", "No human face was found: an animal's face is used."))
    quad = face_quad(chosen)
    return Target(_warp(picture, size, quad), _bounds(quad), quad, faces, face or 0, tuple(notes), not is_animal)


def _crop(picture: Picture, size: int, box: Box, notes: list[tuple[str, str]]) -> Target:
    """Cut the largest square out of the middle of a box that lies inside the picture."""
    left, top, right, bottom = box
    side = min(right - left, bottom - top)
    left, top = (left + right - side) / 2, (top + bottom - side) / 2
    right, bottom = left + side, top + side
    sx, sy = picture.pixels.width / picture.width, picture.pixels.height / picture.height
    inside = (left * sx, top * sy, right * sx, bottom * sy)
    pixels = picture.pixels.resize((size, size), Image.Resampling.LANCZOS, box=inside)
    quad = ((left, top), (left, bottom), (right, bottom), (right, top))
    return Target(np.array(pixels), _bounds(quad), quad, warnings=tuple(notes))


def _parse_box(text: str, picture: Picture) -> Box:
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInput(
            "unknown_value",
            "align is not one of its words, nor a box.",
            field="align",
            given=text[:80],
            allowed=ALIGN_ALLOWED,
        ) from None
    inside = min(left, top) >= 0 and right <= picture.width and bottom <= picture.height
    if not (inside and right - left >= MIN_SIDE and bottom - top >= MIN_SIDE):  # also false for NaN
        raise InvalidInput(
            "out_of_range",
            "The box does not lie inside the picture, or is too small.",
            field="align",
            given=text[:80],
            allowed=f"inside 0,0,{picture.width},{picture.height}, at least {MIN_SIDE} pixels on each side",
        )
    return left, top, right, bottom


def _warp(picture: Picture, size: int, quad: Quad) -> NDArray[np.uint8]:
    """Draw the square upright; what lies outside the picture is its reflection."""
    full = np.array(quad) * [picture.pixels.width / picture.width, picture.pixels.height / picture.height]
    source = np.asarray(picture.pixels)
    side = float(math.dist(full[0], full[1]))
    fine = 2 * size  # drawn at twice the size, then filtered down
    if side > fine:  # averaged first, so that drawing does not skip pixels
        small = max(1, round(source.shape[1] * fine / side)), max(1, round(source.shape[0] * fine / side))
        full *= [small[0] / source.shape[1], small[1] / source.shape[0]]
        source = cv2.resize(source, small, interpolation=cv2.INTER_AREA)
    origin, right, down = full[0], (full[3] - full[0]) / fine, (full[1] - full[0]) / fine
    start = origin + (right + down) / 2 - 0.5  # OpenCV counts from pixel centres
    matrix = np.column_stack([right, down, start])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(source, matrix, (fine, fine), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.array(Image.fromarray(drawn).resize((size, size), Image.Resampling.LANCZOS))


def _bounds(quad: Quad) -> Box:
    xs, ys = zip(*quad, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _quarter_turn(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn from rightwards to downwards."""
    return np.array([-v[1], v[0]])
