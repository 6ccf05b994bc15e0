"""Where exactly a face is: its CelebA-HQ square, from a rough guess, to a fraction of a pixel.

A cascade of linear regressions on a histogram of gradients (the supervised descent method, Xiong & De la Torre,
CVPR 2013) moves, turns and scales the square until it rests. Where it comes to rest depends on the face alone and
hardly on the guess, so the same selfie in another size, turn or format gives the same crop.
`training/fit_pose.py` makes the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

# The patches that are looked at, in parts of the square: centre, span; and in pixels: width, height, cell.
_FACE = ((0.5, 0.53), 0.75, (48, 48), 6)
_EYES = ((0.5, 0.472), 0.75, (96, 40), 8)
_HOGS = [
    cv2.HOGDescriptor(size, (2 * cell, 2 * cell), (cell, cell), (cell, cell), 9) for *_, size, cell in (_FACE, _EYES)
]

ROUNDS = 6
HOPELESS = -0.6  # likeness after the stages below which nothing is refined further
PROBE = np.array([0.03, 0.03, 0.06, 0.06])  # how far around: right, down, ln side, angle


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
    """Describe the face under a pose: (n,) histograms of gradients of the face and of its eyes, and a constant 1."""
    seen = [
        hog.compute(_patch(gray, pose, center, span, size))
        for hog, (center, span, size, _) in zip(_HOGS, (_FACE, _EYES), strict=True)
    ]
    return np.concatenate([*(np.asarray(s, np.float32).ravel() for s in seen), np.ones(1, np.float32)])


def _patch(gray: Gray, pose: Pose, center: tuple[float, float], span: float, size: tuple[int, int]) -> Gray:
    width, height = 2 * size[0], 2 * size[1]  # drawn at twice the size and averaged, so that nothing aliases
    scale = pose.side * span / width
    c, s = scale * math.cos(pose.angle), scale * math.sin(pose.angle)
    x, y = pose.at(*center)
    u, v = (width - 1) / 2, (height - 1) / 2
    matrix = np.array([[c, -s, x - 0.5 - c * u + s * v], [s, c, y - 0.5 - s * u - c * v]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(gray, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)


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
        """Read the weights that come with the package; `kind` is `human` or `cat`."""
        with np.load(Path(__file__).with_name("pose.npz")) as weights:
            return cls(weights[f"{kind}_stages"], weights[f"{kind}_likeness"])

    def refine(self, gray: Gray, pose: Pose) -> tuple[Pose, float]:
        """Let a rough pose come to rest on the face beneath it; gives the pose and its likeness to a face."""
        for stage in self.stages:
            pose = pose.moved(features(gray, pose) @ stage)
        likeness = self.likeness_at(gray, pose)
        if likeness < HOPELESS:
            return pose, likeness
        for _ in range(ROUNDS):
            step = self._newton(gray, pose)
            pose = pose.moved(step)
            if np.abs(step).max() < 1e-3:
                break
        return pose, self.likeness_at(gray, pose)

    def likeness_at(self, gray: Gray, pose: Pose) -> float:
        """Say how much what lies under a pose is like a face: about 1 if it is one, about −1 if not."""
        return float(features(gray, pose) @ self.likeness)

    def _newton(self, gray: Gray, pose: Pose) -> NDArray[np.float64]:
        """Give the step to where the last stage, averaged over the poses around, sees nothing left to do."""
        around = [(pose.moved(probe), pose.moved(-probe)) for probe in np.diag(PROBE)]
        seen = np.array([[features(gray, p) @ self.stages[-1] for p in pair] for pair in around])  # (4, 2, 4)
        slope = (seen[:, 0] - seen[:, 1]).T / (2 * PROBE)  # change of what is left, by each coordinate of a step
        # what hardly changes by moving is left alone, so that a half hidden face is not thrown far
        step = np.linalg.lstsq(slope, -seen.mean((0, 1)), rcond=0.1)[0]
        return np.asarray(np.clip(step, -2 * PROBE, 2 * PROBE), np.float64)
