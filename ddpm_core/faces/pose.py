"""Where exactly a face is: its CelebA-HQ square, from a rough guess, to a fraction of a pixel.

A cascade of linear regressions on a histogram of gradients (the supervised descent method, Xiong & De la Torre,
CVPR 2013) moves, turns and scales the square until it rests. Where it comes to rest depends on the face alone and
hardly on the guess, so the same selfie in another size, turn or format gives the same crop. `fit.py` makes the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

# The patch that is looked at: this part of the square's side, its centre this part of the side below the square's.
SPAN, DROP = 0.75, 0.03
PATCH = 48
ITERATIONS = 16
_HOG = cv2.HOGDescriptor((PATCH, PATCH), (12, 12), (6, 6), (6, 6), 9)


@dataclass(frozen=True)
class Pose:
    """A square in a picture: its centre and side in pixels (edges, not pixel centres, are whole), turned by `angle`.

    `angle` is in radians, positive when the face leans clockwise.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Give the picture's point at (u, v) of the square; (0, 0) is its upper left corner, (1, 1) the lower right."""
        du, dv = (u - 0.5) * self.side, (v - 0.5) * self.side
        c, s = math.cos(self.angle), math.sin(self.angle)
        return self.x + c * du - s * dv, self.y + s * du + c * dv

    def moved(self, step: NDArray[np.floating]) -> Pose:
        """Give the pose after a step (right, down, ln side, angle), the first two in sides along the square's axes."""
        right, down, grow, turn = (float(v) for v in step)
        x, y = self.at(0.5 + right, 0.5 + down)
        return Pose(x, y, self.side * math.exp(grow), self.angle + turn)

    def step_to(self, other: Pose) -> NDArray[np.float64]:
        """Give the step that `moved` takes from here to `other`."""
        dx, dy = (other.x - self.x) / self.side, (other.y - self.y) / self.side
        c, s = math.cos(self.angle), math.sin(self.angle)
        return np.array([c * dx + s * dy, c * dy - s * dx, math.log(other.side / self.side), other.angle - self.angle])


def features(gray: Gray, pose: Pose) -> NDArray[np.float32]:
    """Describe the face under a pose: (n,) histogram of gradients and a constant 1."""
    fine = 2 * PATCH  # drawn at twice the size and averaged, so that nothing aliases
    scale = pose.side * SPAN / fine
    c, s = scale * math.cos(pose.angle), scale * math.sin(pose.angle)
    x, y = pose.at(0.5, 0.5 + DROP)
    middle = (fine - 1) / 2
    matrix = np.array([[c, -s, x - 0.5 - middle * (c - s)], [s, c, y - 0.5 - middle * (s + c)]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(gray, matrix, (fine, fine), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    patch = cv2.resize(patch, (PATCH, PATCH), interpolation=cv2.INTER_AREA)
    return np.append(np.asarray(_HOG.compute(patch), np.float32), np.float32(1))


class PoseModel:
    """The fitted regressions of one kind of face.

    Attributes:
        stages: (k, n, 4) features → step, applied in turn; the last one until it rests.
        likeness: (n,) features → about 1 for a face at rest, about −1 for anything else.
    """

    def __init__(self, stages: NDArray[np.floating], likeness: NDArray[np.floating]) -> None:
        self.stages = stages.astype(np.float32)
        self.likeness = likeness.astype(np.float32)

    @classmethod
    def load(cls, kind: str) -> PoseModel:
        """Read the weights that come with the package; `kind` is ``human`` or ``cat``."""
        with np.load(Path(__file__).with_name("pose.npz")) as weights:
            return cls(weights[f"{kind}_stages"], weights[f"{kind}_likeness"])

    def settle(self, gray: Gray, pose: Pose) -> tuple[Pose, float]:
        """Let a rough pose come to rest on the face beneath it; gives the pose and its likeness to a face."""
        seen = features(gray, pose)
        for k in range(ITERATIONS):
            step = seen @ self.stages[min(k, len(self.stages) - 1)]
            pose = pose.moved(step)
            seen = features(gray, pose)
            if k >= len(self.stages) and np.abs(step).max() < 3e-4:
                break
        return pose, float(seen @ self.likeness)
