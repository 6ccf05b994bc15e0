"""Where eyes and mouth are in pictures that are about aligned already."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ddpm_core.domain import Domain
from ddpm_core.faces.find import LIKE_A_FACE
from ddpm_core.faces.pose import Pose, PoseModel

_SIDE = 96  # as large as the service draws a face to refine it
_POINTS = ((0.375, 0.472), (0.625, 0.472), (0.5, 0.75))  # of the CelebA-HQ square (docs/methods.md)


class Landmarks:
    """A finder of eyes and mouth of one kind of face, from where alignment puts them.

    Args:
        domain: of the model; one without faces has no landmarks.
    """

    def __init__(self, domain: Domain) -> None:
        self._model = PoseModel.load(domain.kind) if domain.kind else None

    @property
    def known(self) -> bool:
        """Whether the model's pictures have faces at all."""
        return self._model is not None

    def find(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the face of each of (N, H, H, 3) uint8.

        Returns:
            (N, 3, 2): left eye, right eye and mouth (x, y), in sides of the picture; NaN where there is no face.
        """
        points = np.full((len(pixels), len(_POINTS), 2), np.nan)
        for i, picture in enumerate(pixels if self._model is not None else ()):
            way = cv2.INTER_AREA if len(picture) > _SIDE else cv2.INTER_LINEAR
            gray = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=way)
            smooth = np.asarray(cv2.GaussianBlur(gray, (0, 0), 1.0), np.uint8)
            assert self._model is not None
            pose, likeness = self._model.refine(smooth, Pose(_SIDE / 2, _SIDE / 2, _SIDE))
            if likeness > LIKE_A_FACE:
                points[i] = np.array([pose.at(*point) for point in _POINTS]) / _SIDE
        return points


def geometry(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the mean distance of eyes and mouth to those of another face, in parts of its distance of the eyes.

    Args:
        points: (N, 3, 2) of the images.
        others: (N, 3, 2) of their targets.

    Returns:
        (N,), NaN where either has no face.
    """
    eyes = np.linalg.norm(others[:, 1] - others[:, 0], axis=-1)
    return np.asarray(np.linalg.norm(points - others, axis=-1).mean(1) / eyes, np.float64)
