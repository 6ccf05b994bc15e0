"""Find faces with what comes with OpenCV, or with YuNet where its file is supplied."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpm_core.domain import Domain, Kind
from ddpm_core.errors import InvalidInput
from ddpm_core.faces.decode import Picture
from ddpm_core.faces.pose import Gray, Pose, PoseModel

Point = tuple[float, float]

YUNET = "face_detection_yunet_20?????.onnx"
"""What OpenCV calls YuNet's files of full precision; the newest of a folder sorts last."""
YUNET_SIDE = 640  # the long side of the copy that YuNet searches
# The cascades search coarsely and let much pass. Refining makes the place exact, and likeness decides.
STEP, NEIGHBOURS, LEAST = 1.2, 1, 20
LIKE_A_FACE = 0.0


@dataclass(frozen=True)
class Face:
    """A face in pixels of the full upright picture.

    Attributes:
        box: left, top, right, bottom.
        score: 0..1, how much it is like a face.
        left_eye: the eye on the image's left (x, y), or None if unknown.
        right_eye: the eye on the image's right (x, y), or None if unknown.
        mouth: the middle between the corners of the mouth, or None if unknown.
        kind: whose face.
    """

    box: tuple[float, float, float, float]
    score: float
    left_eye: Point | None = None
    right_eye: Point | None = None
    mouth: Point | None = None
    kind: Kind = "human"


@dataclass(frozen=True)
class _View:
    """A grey copy to search, and the affine map (2, 3) from its pixels to the picture's."""

    gray: Gray
    back: NDArray[np.float64]
    angle: float = 0.0


class FaceFinder:
    """A finder of the faces of a model's domain; built once per process, one search at a time.

    Args:
        domain: `human_face`, `cat_face`, or `any`, whose models want no face: `find` gives none.
        yunet: a YuNet ONNX file, which then takes the place of the Haar cascades for human faces.

    Raises:
        InvalidInput: unknown_value, field `domain`; bad_file, field `face_detector`.
    """

    def __init__(self, domain: str = Domain.HUMAN_FACE, yunet: Path | None = None) -> None:
        known = ", ".join(Domain)
        if domain not in list(Domain):
            raise InvalidInput(
                "unknown_value", f"The domain {domain!r} is not known.", field="domain", given=domain, allowed=known
            )
        self.domain = Domain(domain)
        self.yunet = yunet
        self._lock = threading.Lock()
        self._yunet = _load_yunet(yunet) if yunet is not None else None
        self._frontal = _cascade("frontalface_alt2")
        self._profile = _cascade("profileface")
        self._cat = _cascade("frontalcatface_extended")
        self._models: dict[Kind, PoseModel] = {
            "human": PoseModel.load("human"),
            "cat": PoseModel.load("cat"),
        }

    def find(self, picture: Picture) -> tuple[Face, ...]:
        """Give the faces found, largest first (see `_ranked`); harder searches are made only while nothing is found."""
        if self.domain.kind is None:
            return ()
        with self._lock:
            pixels = np.asarray(picture.pixels)
            gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            if self.domain is Domain.HUMAN_FACE:
                if self._yunet is not None:
                    faces = self._find_yunet(picture)
                else:
                    faces = self._search(picture, gray, "human", self._human_guesses(gray))
                if faces:
                    return faces
            return self._search(picture, gray, "cat", self._cat_guesses(gray))

    def _search(self, picture: Picture, gray: Gray, kind: Kind, guesses: Iterator[list[Pose]]) -> tuple[Face, ...]:
        """Settle the guesses of one search after the other until one gives faces."""
        for poses in guesses:
            found: list[tuple[Pose, float]] = []
            for guess in sorted(poses, key=lambda pose: -pose.side):
                if _apart(guess, found):
                    pose, likeness = _refined(self._models[kind], gray, guess)
                    if likeness > LIKE_A_FACE and _apart(pose, found):
                        # Once more, on a copy drawn at its own size: on one of the guess's it rests up to 2 % larger.
                        found.append(_refined(self._models[kind], gray, pose))
            if found:
                return tuple(_face(picture, pose, likeness, kind) for pose, likeness in _ranked(found))
        return ()

    def _human_guesses(self, gray: Gray) -> Iterator[list[Pose]]:
        """Yield the rough poses of each search, in pixels of `gray`."""
        frontal = partial(_detect, self._frontal, side=1.47, down=-0.08)
        profile = partial(_detect, self._profile, side=1.26, down=-0.04)
        yield frontal(_view(gray, 320))
        yield frontal(_evened(_view(gray, 320)))  # dim or uneven light
        near = _evened(_view(gray, 240))
        yield profile(near) + profile(_mirrored(near))  # the cascade knows only one side
        yield frontal(_view(gray, 480))  # small faces
        yield frontal(_turned(near, 30)) + frontal(_turned(near, -30))

    def _cat_guesses(self, gray: Gray) -> Iterator[list[Pose]]:
        """Yield the rough poses of each search, in pixels of `gray`."""
        cat = partial(_detect, self._cat, side=1.58, down=-0.10)
        near = _view(gray, 240)
        yield cat(near)
        yield cat(_evened(near))
        yield cat(_turned(near, 25)) + cat(_turned(near, -25))

    def _find_yunet(self, picture: Picture) -> tuple[Face, ...]:
        assert self._yunet is not None
        k = YUNET_SIDE / max(picture.pixels.size)
        size = max(1, round(picture.pixels.width * k)), max(1, round(picture.pixels.height * k))
        copy = np.asarray(picture.pixels.resize(size, Image.Resampling.BOX, reducing_gap=2))[:, :, ::-1]
        self._yunet.setInputSize(size)
        _, rows = self._yunet.detect(np.ascontiguousarray(copy))
        sx, sy = picture.width / size[0], picture.height / size[1]
        faces = [_yunet_face(row * ([sx, sy] * 7 + [1])) for row in (rows if rows is not None else ())]
        return tuple(sorted(faces, key=lambda face: face.box[0] - face.box[2]))


def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).with_name("data") / f"haarcascade_{name}.xml"))


def _view(gray: Gray, side: int) -> _View:
    """Draw the picture at a fixed long side, so that its own size hardly matters."""
    height, width = gray.shape
    k = side / max(height, width)
    small = max(1, round(width * k)), max(1, round(height * k))
    copy = cv2.resize(gray, small, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_LINEAR)
    return _View(copy, np.array([[width / small[0], 0, 0], [0, height / small[1], 0]]))


def _evened(view: _View) -> _View:
    """Even out the light, part by part."""
    gray = cv2.createCLAHE(3.0, (6, 6)).apply(view.gray)
    return _View(np.asarray(gray, np.uint8), view.back, view.angle)


def _mirrored(view: _View) -> _View:
    flip = np.array([[-1.0, 0, view.gray.shape[1]], [0, 1, 0], [0, 0, 1]])
    return _View(np.ascontiguousarray(view.gray[:, ::-1]), view.back @ flip, view.angle)


def _turned(view: _View, degrees: float) -> _View:
    """Turn a view clockwise, so that a face that leans the other way stands upright; nothing is cut off."""
    height, width = view.gray.shape
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    wide, high = abs(c) * width + abs(s) * height, abs(s) * width + abs(c) * height
    turn = np.array([[c, -s, wide / 2 - (c * width - s * height) / 2], [s, c, high / 2 - (s * width + c * height) / 2]])
    gray = cv2.warpAffine(view.gray, turn, (round(wide), round(high)), borderMode=cv2.BORDER_REPLICATE)
    back = view.back @ np.linalg.inv(np.vstack([turn, [0, 0, 1]]))
    return _View(np.asarray(gray, np.uint8), back, -angle)


def _detect(cascade: cv2.CascadeClassifier, view: _View, *, side: float, down: float) -> list[Pose]:
    """Run a cascade; `side` and `down` say where the CelebA-HQ square lies from its boxes, in widths of the box."""
    boxes = cascade.detectMultiScale(view.gray, STEP, NEIGHBOURS, minSize=(LEAST, LEAST))
    zoom = math.sqrt(abs(np.linalg.det(view.back[:, :2])))
    poses = []
    for x, y, width, height in boxes:
        px, py = view.back @ [x + width / 2, y + height / 2 + down * width, 1]
        poses.append(Pose(float(px), float(py), float(side * width * zoom), view.angle))
    return poses


def _apart(pose: Pose, found: list[tuple[Pose, float]]) -> bool:
    """Say whether a pose is of another face than those found."""
    return all(math.dist((pose.x, pose.y), (p.x, p.y)) > 0.3 * max(pose.side, p.side) for p, _ in found)


def _ranked(found: list[tuple[Pose, float]]) -> list[tuple[Pose, float]]:
    """Order by size; of those about as large as the largest the leftmost comes first, which no noise can change."""
    found = sorted(found, key=lambda item: -item[0].side)
    large = [item for item in found if item[0].side > 0.9 * found[0][0].side]
    first = min(large, key=lambda item: item[0].x)
    return [first, *(item for item in found if item is not first)]


def _refined(model: PoseModel, gray: Gray, guess: Pose) -> tuple[Pose, float]:
    """Refine a pose on a copy of about 96 px a side, little more than was learned from, whatever the picture's size."""
    reach = 1.1 * guess.side
    left, top = max(0, int(guess.x - reach)), max(0, int(guess.y - reach))
    part = gray[top : int(guess.y + reach) + 1, left : int(guess.x + reach) + 1]
    k = 96 / guess.side
    size = max(1, round(part.shape[1] * k)), max(1, round(part.shape[0] * k))
    kx, ky = size[0] / part.shape[1], size[1] / part.shape[0]
    part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_LINEAR), np.uint8)
    part = np.asarray(cv2.GaussianBlur(part, (0, 0), 1.0), np.uint8)  # what a format does to fine detail must not count
    near = Pose((guess.x - left) * kx, (guess.y - top) * ky, guess.side * k, guess.angle)
    pose, likeness = model.refine(part, near)
    return Pose(pose.x / kx + left, pose.y / ky + top, pose.side / k, pose.angle), likeness


def _face(picture: Picture, pose: Pose, likeness: float, kind: Kind) -> Face:
    """Give a refined pose in pixels of the full picture, its eyes and mouth where the CelebA-HQ square has them."""
    sx, sy = picture.width / picture.pixels.width, picture.height / picture.pixels.height
    left_eye, right_eye, mouth = (
        (x * sx, y * sy) for x, y in (pose.at(0.375, 0.472), pose.at(0.625, 0.472), pose.at(0.5, 0.75))
    )
    x, y, width = pose.x * sx, pose.y * sy, pose.side / 1.55 * sx
    box = (x - width / 2, y - 0.43 * width, x + width / 2, y + 0.57 * width)
    score = round(min(1.0, max(0.0, (likeness + 1) / 2)), 3)
    return Face(box, score, left_eye, right_eye, mouth, kind)


def _load_yunet(path: Path) -> cv2.FaceDetectorYN:
    wrong = "not found" if not path.is_file() else "not a YuNet ONNX model"
    try:
        detector = cv2.FaceDetectorYN.create(str(path), "", (YUNET_SIDE, YUNET_SIDE), 0.7)
        detector.detect(np.zeros((YUNET_SIDE, YUNET_SIDE, 3), np.uint8))
    except cv2.error:
        raise InvalidInput(
            "bad_file",
            f"The face detector's file is {wrong}.",
            field="face_detector",
            given=path.name,
            allowed="a YuNet model, such as face_detection_yunet_2023mar.onnx",
        ) from None
    return detector


def _yunet_face(row: NDArray[np.floating]) -> Face:
    """Read left, top, width, height, five points (x, y) from right eye to left corner of the mouth, and the score."""
    left, top, width, height, *points, score = (float(v) for v in row)
    (eye, other, _, corner, corner2) = zip(points[::2], points[1::2], strict=True)
    left_eye, right_eye = sorted((eye, other))
    mouth = (corner[0] + corner2[0]) / 2, (corner[1] + corner2[1]) / 2
    return Face((left, top, left + width, top + height), round(score, 3), left_eye, right_eye, mouth)
