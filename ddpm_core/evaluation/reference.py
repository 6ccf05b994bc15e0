"""The real images that samples are measured against."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_core.bundle import Bundle
from ddpm_core.data import images
from ddpm_core.data.collection import open_collection
from ddpm_core.data.split import split
from ddpm_core.errors import InvalidInput

MAX_IMAGES = 50_000
_LOOKED_AT = 50


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images at a model's size, in an order that says nothing.

    Attributes:
        pixels: (N, H, W, 3) uint8.
        names: (N,) where each came from.
        fingerprint: short hash of the whole set.
        part: `all`, or `held back` for those that training did not see.
        dropped: files that could not be used, with the reason.
        halves: indices of two halves that share no file and, where the bundle knows them, no person.
    """

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    fingerprint: str
    part: str
    dropped: tuple[tuple[str, str], ...]
    halves: tuple[NDArray[np.int64], NDArray[np.int64]]


def read_reference(data: Path, bundle: Bundle, *, held_back: bool = False) -> Reference:
    """Read a folder, zip or list at the size of a bundle's images; larger ones are scaled down.

    Args:
        data: the images; at most MAX_IMAGES of them are taken, at random but always the same.
        bundle: what will be measured.
        held_back: only the images that the bundle's training held back from this data.

    Raises:
        InvalidInput: nothing there, images smaller than the model's, or `held_back` from a bundle that held none.
    """
    share, pattern = held_back_share(bundle, held_back), person_pattern(bundle)
    found = read_images(data, bundle)
    return choose(found, share if held_back else None, pattern)


def held_back_share(bundle: Bundle, wanted: bool = True) -> float:
    """Give the share of its data that a bundle's training held back.

    Raises:
        InvalidInput: it is wanted, and the bundle held back none.
    """
    share = float(bundle.manifest.provenance.get("recipe", {}).get("validation", 0))
    if wanted and share == 0:
        message = f"{bundle.path} does not say that images were held back from its training."
        raise InvalidInput("none_held_back", message, field="held_back", given=True, allowed="false")
    return share


def person_pattern(bundle: Bundle) -> str:
    """Give the pattern by which a bundle's training knew persons from file names; empty where it did not."""
    return str(bundle.manifest.provenance.get("recipe", {}).get("person_pattern", ""))


def read_images(data: Path, bundle: Bundle) -> images.ImageSet:
    """Read all images of a folder, zip or list as (N, H, W, 3) at the size of a bundle's, grey ones for a grey model.

    Raises:
        InvalidInput: nothing there, or images smaller than the model's.
    """
    manifest = bundle.manifest
    _refuse_smaller(data, manifest.image_size)
    found = images.load(data, manifest.image_size, manifest.channels)
    return found if manifest.channels == 3 else replace(found, pixels=found.pixels.repeat(3, axis=-1))


def held_back_of(found: images.ImageSet, share: float | None, pattern: str) -> Sequence[int]:
    """Give the indices of the `share` of the images that training held back, or of all."""
    return range(len(found.names)) if share is None else split(found.names, found.digests, share, pattern)[1]


def choose(found: images.ImageSet, share: float | None, pattern: str, without: Container[int] = ()) -> Reference:
    """Take a reference out of images: all, or the `share` that training held back; some can be left out by index."""
    # What is held back lies below `share` on the scale that the split cuts, so its middle is half of that.
    middle = 0.5 if share is None else share / 2
    indices = held_back_of(found, share, pattern)
    kept = np.asarray([i for i in indices if i not in without], dtype=np.int64)
    chosen = np.random.default_rng(0).permutation(kept)[:MAX_IMAGES]
    names, digests = ([column[i] for i in chosen] for column in (found.names, found.digests))
    halves = split(names, digests, middle, pattern)
    taken = images.ImageSet(found.pixels[chosen], tuple(names), tuple(sorted(digests)))
    return Reference(
        taken.pixels,
        taken.names,
        taken.fingerprint,
        "all" if share is None else "held back",
        found.dropped,
        (np.asarray(halves[0], dtype=np.int64), np.asarray(halves[1], dtype=np.int64)),
    )


def _refuse_smaller(data: Path, side: int) -> None:
    """Blown-up images are blurred, and everything would be measured against that blur."""
    collection = open_collection(data)
    for name in collection.names[:: -(-len(collection.names) // _LOOKED_AT)]:
        try:
            picture = images.decoders().decode(collection.read(name)).result()
        except (OSError, InvalidInput):
            continue  # left out by the loader too
        if min(picture.width, picture.height) < side:
            size = f"{picture.width}×{picture.height}"
            raise InvalidInput(
                "sizes_differ",
                f"{name} in {data} is {size}, smaller than the model's {side} px: measure against images of its size.",
                field="reference",
                given=size,
                allowed=f"at least {side}×{side}",
            )
