"""Which pictures spoil a training set: collages, and pictures that are nearly others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Gray = NDArray[np.float32]

# Tried on 5,000 single faces and cats of 256 px (0.3 % taken for collages) and on 1,800 collages of them (2 % missed
# without gaps between the pictures, 1 % with gaps).
SEAM, GUTTER = 0.7, 0.5
# Likeness of a picture to its JPEG of quality 30 or its copy of half the size: above 0.997; of two different faces
# of 19,568: below 0.985.
NEAR = 0.985


def is_collage(image: Image.Image) -> bool:
    """Tell whether straight lines from side to side divide a picture: it was put together from several.

    A picture with a side under 96 pixels is never taken for one: it shows too little.
    """
    if min(image.size) < 96:
        return False
    gray = image.convert("L")
    seams = _array(gray.resize((min(128, gray.width), min(128, gray.height)), Image.Resampling.BOX))
    scale = min(1.0, 384 / max(gray.size))
    gutters = _array(gray.resize((round(gray.width * scale), round(gray.height * scale)), Image.Resampling.BOX))
    return any(_seam(a) >= SEAM for a in (seams, seams.T)) or any(_gutter(a) >= GUTTER for a in (gutters, gutters.T))


def _seam(gray: Gray) -> float:
    """Give the largest share of an inner column of (H, W) along which brightness jumps more than beside it."""
    step = np.abs(np.diff(gray, axis=1))  # (H, W − 1)
    padded = np.pad(step, ((0, 0), (2, 2)), mode="edge")
    jumps = (step > 6) & (step > 1.5 * np.maximum(padded[:, :-4], padded[:, 4:]))
    shares = (jumps[:, 1:] | jumps[:, :-1]).mean(axis=0)  # scaling may spread a seam over two columns
    margin = round(0.12 * gray.shape[1])
    return float(shares[margin:-margin].max())


def _gutter(gray: Gray) -> float:
    """Give the largest share of an inner band of one colour that differs from what lies on both of its sides."""
    width = gray.shape[1]
    flat = np.concatenate([[False], gray.std(axis=0) < 6, [False]])
    edges = np.flatnonzero(np.diff(flat))
    best = 0.0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if not (0.1 * width < start and end < 0.9 * width and end - start <= 0.08 * width):
            continue
        colour = np.median(gray[:, start:end])
        if np.abs(gray[:, start:end].mean(axis=0) - colour).max() >= 12:
            continue
        sides = gray[:, [start - 3, min(width - 1, end + 2)]]
        best = max(best, float((np.abs(sides - colour) > 12).mean(axis=0).min()))
    return best


class NearDuplicates:
    """Pictures remembered by a small signature; it finds the one that a new picture nearly is, mirrored or not."""

    def __init__(self) -> None:
        self._signatures = np.empty((256, _SIDE**2), np.float32)
        self._names: list[str] = []

    def find(self, image: Image.Image) -> str | None:
        """Give the name of a remembered picture that this one nearly is, or None."""
        known = self._signatures[: len(self._names)]
        if not len(known):
            return None
        likeness = np.maximum(known @ _signature(image), known @ _signature(image, mirrored=True))
        best = int(likeness.argmax())
        return self._names[best] if likeness[best] >= NEAR else None

    def add(self, name: str, image: Image.Image) -> None:
        """Remember a picture."""
        if len(self._names) == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[len(self._names)] = _signature(image)
        self._names.append(name)


_SIDE = 16


def _signature(image: Image.Image, *, mirrored: bool = False) -> Gray:
    """Give the picture's brightness on a 16 × 16 grid, as a vector of mean 0 and length 1."""
    values = _array(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX))
    values = (values[:, ::-1] if mirrored else values).ravel()
    values = values - values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 1e-3 else np.zeros_like(values)


def _array(image: Image.Image) -> Gray:
    return np.asarray(image, np.float32)
