"""Figures of what the face network sees: how many faces are whole, and how near the faces are to real ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm_core.evaluation.extractor import Yardstick, prefixed
from ddpm_core.evaluation.face_network import DOMAIN, FaceNetwork, Faces, installed

MAX_REAL = 500
"""Of the real faces no more are looked at: each takes a quarter of a second."""


class FaceFigures:
    """A face network's measure of pictures, against real faces.

    Args:
        look: the network.
        real: (N, H, H, 3) uint8 real faces in an order that says nothing, N ≥ MIN_IMAGES.
    """

    def __init__(self, look: FaceNetwork, real: NDArray[np.uint8]) -> None:
        self.look = look
        self.real = look(real[:MAX_REAL])
        self._yardstick = _yardstick(self.real)

    def measure(self, faces: Faces) -> dict[str, float]:
        """Give the figures of N ≥ MIN_IMAGES faces; the distances are in the network's embedding."""
        return {**_alone(faces), **_against(self._yardstick, faces)}

    def of_real(self, half: NDArray[np.int64], other: NDArray[np.int64]) -> dict[str, float]:
        """Give the figures of some of the real faces, by index, against others of them: what is perfect."""
        half, other = (indices[indices < len(self.real)] for indices in (half, other))
        faces = self.real[half]
        return {**_alone(faces), **_against(_yardstick(self.real[other]), faces)}


def network_for(domain: str) -> FaceNetwork | None:
    """Load the network where it is installed and judges a model's kind of picture."""
    return FaceNetwork() if domain == DOMAIN and installed() else None


def persons_apart(faces: Faces, others: Faces) -> NDArray[np.float64]:
    """Give how far each face's person is from that of another face, one each: (N,), below 0.6 the same person."""
    return np.asarray(np.linalg.norm(faces.embeddings - others.embeddings, axis=1), np.float64)


def _alone(faces: Faces) -> dict[str, float]:
    return {"whole_faces": float(faces.whole.mean()), "face_asymmetry": float(np.median(faces.asymmetry))}


def _yardstick(faces: Faces) -> Yardstick:
    return Yardstick(torch.from_numpy(faces.embeddings).float(), substitute=True)


def _against(yardstick: Yardstick, faces: Faces) -> dict[str, float]:
    return prefixed("face", yardstick.measure(torch.from_numpy(faces.embeddings).float()))
