"""Training images decoded once into one array of bytes, in memory or in a file beside the run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ddpm_core import faces
from ddpm_core.data.collection import Collection, open_collection
from ddpm_core.data.left_out import count_reasons, in_words, reason
from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole

_PICTURES_EACH = 1000  # they are all of one owner


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images.

    Attributes:
        pixels: (N, H, W, C) uint8.
        names: (N,) where each came from.
        digests: (N,) SHA-256 of each file.
        dropped: files that were seen and not used, with the reason, and what exactly behind a colon.
    """

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        """Short hash of the whole set: same files, same order."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()[:16]


def load(
    path: Path,
    image_size: int,
    channels: int = 3,
    *,
    classes: Sequence[str] = (),
    cache: Path | None = None,
    memory: int | None = None,
) -> ImageSet:
    """Decode every image of a folder, zip or list to squares of `image_size`; unreadable ones are reported, not fatal.

    Args:
        path: folder, zip or list.
        image_size: side in pixels; the middle square of an image is scaled to it.
        channels: 3 for colour, 1 for grey.
        classes: first folders to keep; empty for all.
        cache: folder for the array when it does not fit into memory.
        memory: bytes that it may take in memory; half of what is free by default.

    Raises:
        InvalidInput: no images, none readable, or a class that is not there.
        OSError: the disk has no room for the array.
    """
    collection = open_collection(path)
    names = _of_classes(collection.names, classes)
    unused = tuple(collection.unused.items())
    shape = (len(names), image_size, image_size, channels)
    memory = memory if memory is not None else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if int(np.prod(shape)) <= memory or cache is None:
        found = _decode_all(collection, names, np.empty(shape, np.uint8))
        return replace(found, dropped=found.dropped + unused)
    stamped = [(name, *collection.stamp(name)) for name in names]
    key = hashlib.sha256(json.dumps([*shape, *stamped]).encode()).hexdigest()[:16]
    index, array = cache / f"{key}.json", cache / f"{key}.npy"
    if not index.exists():  # written last, so it is there only with a whole array
        cache.mkdir(parents=True, exist_ok=True)
        pixels = _on_disk(array, shape)
        done = _decode_all(collection, names, pixels)
        pixels.flush()
        write_whole(index, json.dumps([done.names, done.digests, done.dropped]))
    kept, digests, dropped = json.loads(index.read_text(encoding="utf-8"))
    stored: NDArray[np.uint8] = np.load(array, mmap_mode="r")
    return ImageSet(
        stored[: len(kept)], tuple(kept), tuple(digests), (*((name, why) for name, why in dropped), *unused)
    )


def decode(data: bytes, image_size: int, channels: int = 3) -> NDArray[np.uint8]:
    """Decode one image of any kind to (H, W, C) uint8: upright, its middle square scaled, transparency over white.

    Raises:
        InvalidInput: not an image that can be decoded.
    """
    image = ImageOps.fit(decoders().decode(data).result().pixels, (image_size, image_size), Image.Resampling.LANCZOS)
    return np.asarray(image if channels == 3 else image.convert("L"), np.uint8).reshape(
        image_size, image_size, channels
    )


def decoders() -> faces.Pool:
    """Give the helper processes that decode the pictures of a data set: one that breaks its decoder is left out."""
    return faces.pool_for(pictures_each=_PICTURES_EACH)


def _on_disk(file: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Make an array in a file, with its room taken: on a full disk a write through the mapping kills the process."""
    pixels: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            file.unlink()
            raise OSError(error.errno, error.strerror, str(file)) from None  # as `open` would say it
    return pixels


def _of_classes(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    if not classes:
        return list(names)
    known = sorted({name.split("/")[0] for name in names if "/" in name})
    missing = sorted(set(classes) - set(known))
    if missing:
        words = ", ".join(known) or "none"
        raise InvalidInput(
            "unknown_name",
            f"There is no class folder {missing[0]} in the data. Known: {words}.",
            field="classes",
            given=missing[0],
            allowed=words,
        )
    return [name for name in names if name.split("/")[0] in classes]


def _decode_all(collection: Collection, names: Sequence[str], pixels: NDArray[np.uint8]) -> ImageSet:
    """Fill `pixels` from the front with the images that can be decoded."""
    image_size, channels = pixels.shape[1], pixels.shape[3]

    def one(name: str) -> tuple[str, NDArray[np.uint8] | None, str]:
        try:
            data = collection.read(name)
            return name, decode(data, image_size, channels), hashlib.sha256(data).hexdigest()
        except (InvalidInput, OSError) as error:
            return name, None, ": ".join(reason(error))

    kept: list[str] = []
    digests: list[str] = []
    dropped: list[tuple[str, str]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, image, note in pool.map(one, names):
            if image is None:
                dropped.append((name, note))
                continue
            pixels[len(kept)] = image
            kept.append(name)
            digests.append(note)
    if not kept:
        name, why = dropped[0]
        counted = in_words(count_reasons(why for _, why in dropped))
        message = f"None of {len(dropped)} images can be used ({counted}); the first, {name}: {why}"
        raise InvalidInput("no_images", message, field="data")
    return ImageSet(pixels[: len(kept)], tuple(kept), tuple(digests), tuple(dropped))
