"""What is aimed at, and the real faces that are measured against: no person is in both."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ddpm_core.data.collection import open_collection
from ddpm_core.data.images import ImageSet
from ddpm_core.data.split import groups
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.likeness.copying import threshold
from ddpm_core.evaluation.reference import Reference, choose, held_back_of, held_back_share, read_images
from ddpm_core.gate import Judgement
from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import Pixels, to_pixels, to_tensor

PERSON_PATTERN = r"^lfw/(.+)_\d+\."


@dataclass(frozen=True, eq=False)
class Target:
    """A face to resemble.

    Attributes:
        name: of its file.
        digest: SHA-256 of its file.
        pixels: (H, H, 3) uint8, aligned.
        judgement: what the service knows of it before it plans.
        aligned: it came aligned, out of a zip or list.
    """

    name: str
    digest: str
    pixels: Pixels
    judgement: Judgement
    aligned: bool = False

    @property
    def face(self) -> bool:
        """False where no face of the model's domain was found; such a target is measured apart."""
        return self.judgement.has_face is not False


@dataclass(frozen=True, eq=False)
class Material:
    """All pictures of a measurement.

    Attributes:
        targets: faces to resemble.
        reference: real faces of other persons.
        threshold: an image whose detail is nearer to its target (`copying.distances`) is a copy.
        person_pattern: by which persons were known.
    """

    targets: tuple[Target, ...]
    reference: Reference
    threshold: float
    person_pattern: str

    @property
    def fingerprint(self) -> str:
        """Short hash of the targets."""
        return hashlib.sha256("".join(target.digest for target in self.targets).encode()).hexdigest()[:16]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, H, H, 3), of the targets."""
        return np.stack([target.pixels for target in self.targets])


def read_material(
    targets: Sequence[Path],
    reference: Path,
    pipeline: Pipeline,
    *,
    num_targets: int | None = None,
    held_back: float | None = None,
    person_pattern: str = PERSON_PATTERN,
) -> Material:
    """Read what is measured.

    Args:
        targets: folders of photographs, which are decoded and aligned as the service does; zips or lists of pictures
            that are aligned already.
        reference: folder, zip or list of aligned faces, several of some persons.
        pipeline: the model.
        num_targets: so many of each zip or list, of different persons as far as possible; all unless said.
        held_back: of zips, lists and the reference only this share, which training held back.
        person_pattern: regular expression on the path; its first group names the person.

    Raises:
        InvalidInput: no pictures, pictures that cannot be read or are too small, no person with two photographs.
    """
    known = read_images(reference, pipeline.bundle)
    limit = threshold(known, person_pattern)
    everything = read_targets(
        targets,
        pipeline,
        num_targets=num_targets,
        held_back=held_back,
        person_pattern=person_pattern,
        known={reference.resolve(): known},
    )
    belongs = groups(
        [*(target.name for target in everything), *known.names],
        [*(target.digest for target in everything), *known.digests],
        person_pattern,
    )
    aimed_at = set(belongs[: len(everything)])
    without = {i for i, group in enumerate(belongs[len(everything) :]) if group in aimed_at}
    real = choose(known, held_back, person_pattern, without)
    if held_back is not None and held_back != held_back_share(pipeline.bundle, wanted=False):
        real = replace(real, part=f"{held_back:g} of it")  # the model may have seen them
    return Material(everything, real, limit, person_pattern)


def read_targets(
    targets: Sequence[Path],
    pipeline: Pipeline,
    *,
    num_targets: int | None = None,
    held_back: float | None = None,
    person_pattern: str = PERSON_PATTERN,
    known: Mapping[Path, ImageSet] = MappingProxyType({}),
) -> tuple[Target, ...]:
    """Read the faces to resemble, photographs first; arguments as for `read_material`, and zips that are read already.

    Raises:
        InvalidInput: no pictures, or pictures that cannot be read or are too small.
    """
    found = [target for path in targets if path.is_dir() for target in _photographs(path, pipeline)]
    for path in (path for path in targets if not path.is_dir()):
        images = known.get(path.resolve()) or read_images(path, pipeline.bundle)
        found += _aligned(images, num_targets, held_back, person_pattern)
    return tuple(found)


def _photographs(folder: Path, pipeline: Pipeline) -> list[Target]:
    collection = open_collection(folder)
    targets = []
    for name in collection.names:
        data = collection.read(name)
        try:
            aimed = pipeline.aim(data)
        except InvalidInput as error:
            raise InvalidInput(
                error.code, f"{name} in {folder}: {error.message}", field="targets", given=name
            ) from None
        pixels = to_pixels(to_tensor(aimed.pixels, pipeline.bundle.manifest.channels))
        targets.append(Target(name, hashlib.sha256(data).hexdigest(), pixels, pipeline.judge(aimed)))
    return targets


def _aligned(found: ImageSet, count: int | None, held_back: float | None, pattern: str) -> list[Target]:
    indices = held_back_of(found, held_back, pattern)
    belongs = groups(found.names, found.digests, pattern)
    shuffled = np.random.default_rng(0).permutation(np.asarray(indices, dtype=np.int64)).tolist()
    seen: dict[str, int] = defaultdict(int)
    turn: dict[int, int] = {}
    for i in shuffled:
        turn[i] = seen[belongs[i]]
        seen[belongs[i]] += 1
    chosen = sorted(shuffled, key=lambda i: turn[i])[:count]  # each person's first image before any second
    return [
        Target(found.names[i], found.digests[i], found.pixels[i], Judgement(has_face=True), aligned=True)
        for i in chosen
    ]
