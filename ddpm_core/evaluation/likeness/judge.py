"""All figures of the images of one method: how like the targets, how like real faces, how many are copies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core.evaluation.extractor import Yardstick, prefixed, wavelet_extractor
from ddpm_core.evaluation.face_figures import FaceFigures, persons_apart
from ddpm_core.evaluation.face_network import FaceNetwork
from ddpm_core.evaluation.likeness.activations import denoiser_extractor
from ddpm_core.evaluation.likeness.copying import distances
from ddpm_core.evaluation.likeness.landmarks import Landmarks, geometry
from ddpm_core.evaluation.likeness.material import Material
from ddpm_core.evaluation.likeness.resemblance import cosine, low_pass_distance, ssim
from ddpm_core.pipeline import Pipeline

SPACES = ("denoiser", "wavelet")
RESEMBLANCE = ("low_pass_16", "low_pass_32", "ssim", "feature_cosine", "landmarks")


class Judge:
    """The measures of images that were made from targets.

    Args:
        pipeline: the model, for its features and its domain.
        material: targets and real faces.
        look: the face network; its figures are left out without.
    """

    def __init__(self, pipeline: Pipeline, material: Material, look: FaceNetwork | None = None) -> None:
        self._material = material
        self._landmarks = Landmarks(pipeline.bundle.manifest.domain)
        self._extract = dict(
            zip(SPACES, (denoiser_extractor(pipeline), wavelet_extractor(pipeline.denoiser.device)), strict=True)
        )
        self._real = {space: extract(material.reference.pixels) for space, extract in self._extract.items()}
        self._yardsticks = {space: Yardstick(features, substitute=True) for space, features in self._real.items()}
        own = self._real["denoiser"]
        self._centre, self._scale = own.mean(0), own.std(0).clamp(min=1e-3)
        normal = self._normal(own)
        among = torch.cdist(normal, normal).fill_diagonal_(torch.inf)
        self._usual = float(among.min(1).values.mean())
        self._aim = self._normal(self._extract["denoiser"](material.pixels))
        self._points = self._landmarks.find(material.pixels)
        self._faces = FaceFigures(look, material.reference.pixels) if look else None
        self._persons = look(material.pixels) if look else None

    def real(self, most: int) -> dict[str, Any]:
        """Measure one half of the reference, at most so many of it, against the other: what is perfect."""
        half, other = sorted(self._material.reference.halves, key=len)
        half = half[:most]
        figures: dict[str, Any] = {}
        for space, features in self._real.items():
            among = Yardstick(features[other], substitute=True)
            figures |= prefixed(space, among.measure(features[half]))
        if self._faces:
            figures |= self._faces.of_real(half, other)
        points = self._landmarks.find(self._material.reference.pixels[half])
        return {"images": len(half), **figures, "nearest_real": 1.0, "face_found": self._found(points)}

    def measure(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        """Give the figures of (T·K, H, H, 3) images, K of each target in turn; those of targets without a face apart.

        Resemblance is that of images that are no copies; with `_all` behind the name, that of all.
        """
        targets = self._material.targets
        each = len(images) // len(targets)
        aim = np.repeat(np.arange(len(targets)), each)  # which target an image has
        counted = np.array([target.face for target in targets])[aim]
        features = {space: extract(images) for space, extract in self._extract.items()}
        points = self._landmarks.find(images)
        pixels = self._material.pixels[aim]
        from_target = distances(images, pixels)
        copy = from_target < self._material.threshold
        own = self._normal(features["denoiser"])
        nearest = torch.cdist(own, self._normal(self._real["denoiser"])).min(1).values.double().cpu().numpy()
        alike = {
            "low_pass_16": low_pass_distance(images, pixels, 16),
            "low_pass_32": low_pass_distance(images, pixels, 32),
            "ssim": ssim(images, pixels),
            "feature_cosine": cosine(own, self._aim[aim]),
            "landmarks": geometry(points, self._points[aim]),
        }
        faces = self._faces.look(images) if self._faces else None
        if faces and self._persons:
            alike["identity_distance"] = persons_apart(faces, self._persons[aim])
        figures: dict[str, Any] = {name: _mean(values[counted & ~copy]) for name, values in alike.items()}
        figures |= {f"{name}_all": _mean(values[counted]) for name, values in alike.items()}
        figures |= {
            "images": int(counted.sum()),
            "copies": float(copy[counted].mean()),
            "copy_distance": float(np.median(from_target[counted])),
            "copy_distance_least": float(from_target[counted].min()),
            "copy_threshold": self._material.threshold,
            "nearest_real": _mean(nearest[counted] / self._usual),
            "face_found": self._found(points[counted]),
        }
        kept = torch.from_numpy(counted.nonzero()[0])
        for space, yardstick in self._yardsticks.items():
            figures |= prefixed(space, yardstick.measure(features[space][kept.to(features[space].device)]))
        if faces and self._faces:
            figures |= self._faces.measure(faces[counted])
        figures["by_target"] = [
            {
                "target": target.name,
                "face": target.face,
                "aligned": target.aligned,
                "low_pass_16": _mean(alike["low_pass_16"][aim == i]),
                "copies": int(copy[aim == i].sum()),
                "nearest_real": _mean(nearest[aim == i] / self._usual),
                **({"whole_faces": float(faces.whole[aim == i].mean())} if faces else {}),
            }
            for i, target in enumerate(targets)
        ]
        return figures

    def _normal(self, features: Tensor) -> Tensor:
        return (features - self._centre) / self._scale

    def _found(self, points: NDArray[np.float64]) -> float | None:
        """Give the share of pictures with a face; None for a model whose pictures have none."""
        return float((~np.isnan(points[:, 0, 0])).mean()) if self._landmarks.known else None


def _mean(values: NDArray[np.float64]) -> float | None:
    """Give the mean of what is known, or None: JSON has no NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) and math.isfinite(known.mean()) else None
