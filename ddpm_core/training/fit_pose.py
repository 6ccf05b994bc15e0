"""Fit the weights of `faces/pose.py`.

`python -m ddpm_core.training.fit_pose --human FACES.zip --cat CATS.zip --out pose.npz`: the zips
hold aligned faces (64 px, CelebA-HQ framing); every face is its own truth, disturbed and found again.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpm_core.faces.pose import Gray, Pose, PoseModel, features

STAGES = 4
JUDGED = 2500  # faces, and others, to learn likeness from
RIDGE = 1e-3
# Standard deviations of what a Haar box gets wrong: right, down (in sides), ln side, angle.
ROUGH = np.array([0.05, 0.05, 0.10, 0.15])
ASTRAY = np.array([0.25, 0.25, 0.3, 0.3])
FINE = np.array([0.01, 0.01, 0.02, 0.02])


def read_faces(archive: Path, folder: str, count: int, rng: np.random.Generator) -> list[Gray]:
    """Read `count` random grey pictures below `folder` of a zip."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(n for n in files.namelist() if n.startswith(folder) and not n.endswith("/"))
        chosen = rng.permutation(names)[:count]
        return [np.asarray(Image.open(io.BytesIO(files.read(name))).convert("L")) for name in chosen]


def ridge(X: NDArray[np.float32], Y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Solve X·W ≈ Y with a penalty on W, the constant's excepted."""
    A = (X.T @ X).astype(np.float64)
    A[np.diag_indices(len(A) - 1)] += RIDGE * len(X)
    return np.asarray(np.linalg.solve(A, X.T @ Y), np.float64)


def fit(faces: list[Gray], others: list[Gray], rng: np.random.Generator) -> PoseModel:
    """Fit one kind of face; `others` are pictures without such a face."""
    faces = faces + [np.ascontiguousarray(face[:, ::-1]) for face in faces]
    truth = Pose(32, 32, 64)
    rows = [(_spoilt(face, rng), truth.moved(_draw(ROUGH, rng))) for face in faces for _ in range(2)]
    stages = []
    for _ in range(STAGES):
        X = np.stack([features(face, pose) for face, pose in rows])
        Y = np.stack([pose.step_to(truth) for _, pose in rows]).astype(np.float32)
        W = ridge(X, Y)
        stages.append(W)
        rows = [(face, pose.moved(step)) for (face, pose), step in zip(rows, X @ W, strict=True)]
        # the next stage meets what this one leaves, and somewhat more, so that it pulls from every side
        left = np.maximum(np.std([pose.step_to(truth) for _, pose in rows], axis=0), FINE)
        rows = [(face, pose.moved(_draw(0.7 * left, rng))) for face, pose in rows]
        print("left over (right, down, ln side, angle):", left.round(4), flush=True)

    model = PoseModel(np.stack(stages), np.zeros(len(stages[0])))
    good: list[NDArray[np.float32]] = []
    bad: list[NDArray[np.float32]] = []
    for clean, is_face in [(faces[i], True) for i in rng.permutation(len(faces))[:JUDGED]] + [
        (others[i], False) for i in rng.permutation(len(others))[:JUDGED]
    ]:
        picture = _spoilt(clean, rng)
        pose, _ = model.refine(picture, truth.moved(_draw(ROUGH, rng)))
        (good if is_face else bad).append(features(picture, pose))
        pose, _ = model.refine(picture, truth.moved(rng.normal(size=4) * ASTRAY))
        if not is_face or (np.abs(pose.step_to(truth)) > [0.15, 0.15, 0.4, 0.5]).any():
            bad.append(features(picture, pose))
    X = np.stack(good + bad)
    sign = np.r_[np.ones(len(good)), -np.ones(len(bad))].astype(np.float32)
    balance = np.sqrt(np.where(sign > 0, 0.5 / len(good), 0.5 / len(bad)) * len(X)).astype(np.float32)
    likeness = ridge(X * balance[:, None], (sign * balance)[:, None])[:, 0]
    margin = X @ likeness
    print(
        f"likeness: {len(good)} faces, {len(bad)} others; 1 % of faces below {np.quantile(margin[sign > 0], 0.01):.2f},"
    )
    print(f"          1 % of the others above {np.quantile(margin[sign < 0], 0.99):.2f}")
    return PoseModel(np.stack(stages), likeness)


def _spoilt(face: Gray, rng: np.random.Generator) -> Gray:
    """Blur, darken and add noise, so that what is learned does not hang on how a picture was taken and stored."""
    blurred = cv2.GaussianBlur(face, (0, 0), rng.uniform(0.1, 1.2)) * rng.uniform(0.4, 1.0)
    return np.asarray(np.clip(blurred + rng.normal(size=face.shape) * rng.uniform(0, 4), 0, 255), np.uint8)


def _draw(sigma: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return np.clip(rng.normal(size=4), -2.2, 2.2) * sigma


def main() -> None:
    """Fit human and cat faces, each with the other's pictures (and turned ones) among what is no face."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--human", type=Path, required=True, help="zip with aligned faces below celeba/")
    parser.add_argument("--cat", type=Path, required=True, help="zip with aligned cats below cat/")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    human = read_faces(arguments.human, "celeba/", 9000, rng)
    cat = read_faces(arguments.cat, "cat/", 6000, rng)
    turned = [np.ascontiguousarray(np.rot90(face, int(rng.integers(1, 4)))) for face in human + cat]
    weights: dict[str, Any] = {}
    for kind, faces, others in (("human", human, cat), ("cat", cat, human)):
        model = fit(faces, others + turned, np.random.default_rng(1))
        weights[f"{kind}_stages"] = model.stages.astype(np.float16)
        weights[f"{kind}_likeness"] = model.likeness.astype(np.float16)
    np.savez_compressed(arguments.out, **weights)


if __name__ == "__main__":
    main()
