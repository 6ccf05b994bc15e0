"""What a public face network sees in a picture: whether a face is whole, how even it is, and whose it is.

dlib's frontal detector, its 68 landmarks and its network of 128 numbers for a person (King 2009, 2017). They serve
measurements alone and are installed apart: `pip install 'ddpm-lookalike[measure]'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ddpm_core.domain import Domain

DOMAIN = Domain.HUMAN_FACE
"""Of the models whose pictures it can judge."""
INSTALL = "pip install 'ddpm-lookalike[measure]'"
WHOLE = 1.0
"""A face is whole when the detector's score of it is higher."""
_SIDE, _EDGE = 384, 64
_LEAST = -1.0  # a score that nearly every picture reaches, so that nearly every one has a place
_USUAL = (0.19, 0.31, 0.76, 0.88)  # left, top, right and bottom in sides of the picture: where alignment puts a face
_MIRRORED = (
    *(16 - i for i in range(17)),  # jaw
    *(26 - i for i in range(10)),  # eyebrows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # lips, without
    *(64, 63, 62, 61, 60, 67, 66, 65),  # and within
)
"""Which landmark each one is in a mirror."""


@dataclass(frozen=True, eq=False)
class Faces:
    """What was seen in N pictures.

    Attributes:
        scores: (N,) float64, how certain the detector is of its most certain face; −∞ where it finds none.
        asymmetry: (N,) float64, see `asymmetry`.
        embeddings: (N, 128) float64; Euclidean distances below 0.6 mean the same person.
    """

    scores: NDArray[np.float64]
    asymmetry: NDArray[np.float64]
    embeddings: NDArray[np.float64]

    def __len__(self) -> int:
        """Give the number of pictures."""
        return len(self.scores)

    def __getitem__(self, indices: NDArray[Any] | slice) -> Faces:
        """Take some of them."""
        return Faces(self.scores[indices], self.asymmetry[indices], self.embeddings[indices])

    @property
    def whole(self) -> NDArray[np.bool_]:
        """(N,): whether the face is whole."""
        return self.scores > WHOLE


class FaceNetwork:
    """Detector, landmarks and embedding; make it where `installed` says so.

    Attributes:
        version: of the networks.
    """

    def __init__(self) -> None:
        import dlib

        # Its own functions for this need setuptools, which newer ones have no part for.
        (folder,) = (Path(place) / "models" for place in _models())
        self.version = f"dlib {dlib.__version__}, models {version('face_recognition_models')}"
        self._rectangle = dlib.rectangle
        self._detect = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
        self._embed = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def __call__(self, pixels: NDArray[np.uint8]) -> Faces:
        """Look at aligned pictures, (N, H, H, 3) uint8 of any size; a quarter of a second each.

        Where the detector finds no face, landmarks and embedding are those of the place where one should be.
        """
        seen = [self._look(picture) for picture in pixels]
        scores, points, embeddings = zip(*seen, strict=True)
        return Faces(np.array(scores), asymmetry(np.stack(points)), np.stack(embeddings))

    def _look(self, picture: NDArray[np.uint8]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        large = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
        large = cv2.copyMakeBorder(large, _EDGE, _EDGE, _EDGE, _EDGE, cv2.BORDER_REFLECT)
        places, scores, _ = self._detect.run(large, 0, _LEAST)
        best = int(np.argmax(scores)) if len(scores) else None
        place = self._rectangle(*(round(_EDGE + at * _SIDE) for at in _USUAL)) if best is None else places[best]
        shape = self._landmarks(large, place)
        points = np.array([(point.x, point.y) for point in shape.parts()], np.float64)
        embedding = np.array(self._embed.compute_face_descriptor(large, shape), np.float64)
        return (-np.inf if best is None else float(scores[best])), points, embedding


def installed() -> bool:
    """Say whether what `FaceNetwork` needs is there."""
    return find_spec("dlib") is not None and bool(_models())


def asymmetry(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give how far landmarks are from those of the face in a mirror, turned and moved to lie on them.

    Args:
        points: (N, 68, 2).

    Returns:
        (N,) root mean square distance in parts of the distance of the eyes; 0 of an even face seen from the front.
    """
    eyes = np.linalg.norm(points[:, 36:42].mean(1) - points[:, 42:48].mean(1), axis=-1)
    straight = points - points.mean(1, keepdims=True)
    mirrored = straight[:, _MIRRORED] * (-1, 1)
    x, y = (each[..., 0] + 1j * each[..., 1] for each in (straight, mirrored))
    turn = (x * y.conj()).sum(1)  # of the turn that brings the mirrored ones nearest
    apart = np.abs(x - y * (turn / np.abs(turn))[:, None])
    return np.asarray(np.sqrt((apart**2).mean(1)) / eyes, np.float64)


def _models() -> list[str]:
    """Give the folder of the models' package without importing it."""
    spec = find_spec("face_recognition_models")
    return list(spec.submodule_search_locations or ()) if spec else []
