"""From pictures as they are found to a training set: decoded, judged, cropped, and a report of what was left out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageDraw

from ddpm_core import faces
from ddpm_core.data.collection import Collection, open_collection, refuse_inside
from ddpm_core.data.download import download, read_addresses
from ddpm_core.data.images import decoders
from ddpm_core.data.judge import NearDuplicates, is_collage
from ddpm_core.data.left_out import count_reasons, in_words, reason
from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole
from ddpm_core.writer import only_writer_of_folder

REPORT, IMAGES = "report.json", "images"
_AT_ONCE = 32
_TILE, _COLUMNS, _MOST_TILES = 96, 12, 120

Progress = Callable[[str, int, int], None]


def _quiet(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Dropped:
    """A picture that was left out.

    Attributes:
        name: where it came from.
        reason: one of a few words, such as `collage`.
        detail: what exactly.
        thumbnail: small picture for the sheet; None when it could not be decoded.
    """

    name: str
    reason: str
    detail: str = ""
    thumbnail: Image.Image | None = None

    @property
    def why(self) -> str:
        """The reason, and what exactly."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def prepare(
    source: Path,
    out: Path,
    size: int,
    *,
    domain: str = "any",
    min_side: int | None = None,
    allow_private: bool = False,
    progress: Progress = _quiet,
) -> Mapping[str, Any]:
    """Make a training set of a folder, a zip, a list of files or a list of addresses; the originals are only read.

    Args:
        source: where the pictures are; sub-folders stay as classes.
        out: takes `images/`, the report, a sheet of what was left out, and downloads.
        size: side of the images made, in pixels.
        domain: human_face or cat_face crops the largest face as in CelebA-HQ and drops pictures without one; any
            crops the middle square.
        min_side: smallest side of a crop in the original's pixels; `size` by default.
        allow_private: fetch also from addresses that are not on the public internet.
        progress: called with the stage, how many are done, and of how many.

    Returns:
        The report, which also lies in `out`: counts, and what became of every picture.

    Raises:
        InvalidInput: no pictures, none that can be kept, or `out` holds a training set or other `images/` already,
            lies in the source, or is written by another process.
        OSError: something could not be written.
    """
    _refuse(source, out)
    with only_writer_of_folder(out):
        _refuse(source, out)  # again: who wrote it may have ended just now
        return _prepare(source, out, size, size if min_side is None else min_side, domain, allow_private, progress)


def _prepare(
    source: Path, out: Path, size: int, min_side: int, domain: str, allow_private: bool, progress: Progress
) -> Mapping[str, Any]:
    aside = _aside(out)
    names, read, dropped, unused = _gather(source, out, progress, allow_private)
    shutil.rmtree(aside, ignore_errors=True)  # of a preparation that was interrupted
    aside.mkdir(parents=True)

    judge = _Judge(size, min_side, faces.FaceFinder(domain))
    kept: dict[str, str] = {}
    for done, (name, digest, picture) in enumerate(_decoded(names, read), 1):
        progress("prepare", done, len(names))
        fate = judge(name, digest, picture)
        if isinstance(fate, Dropped):
            dropped.append(fate)
        else:
            target = _free_name(aside, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            fate.save(target)
            kept[name] = target.relative_to(aside).as_posix()
    report = {
        "source": source.name,
        "size": size,
        "domain": domain,
        "found": len(kept) + len(dropped),
        "kept": len(kept),
        "dropped": count_reasons(item.reason for item in dropped),
        "images": kept,
        "left_out": {item.name: item.why for item in dropped},
    }
    if pictures := [item for item in dropped if item.name not in unused]:
        draw_dropped(pictures).save(out / "dropped.png")
    if not kept:
        shutil.rmtree(aside)
        raise _none_kept(source, pictures, out / "dropped.png")
    aside.rename(out / IMAGES)
    write_whole(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def draw_dropped(dropped: Sequence[Dropped]) -> Image.Image:
    """Draw a sheet of pictures that were left out, each with its reason, the same reasons together."""
    shown = sorted(dropped, key=lambda item: item.reason)
    shown = shown[:: math.ceil(len(shown) / _MOST_TILES)]  # of many, evenly chosen ones
    columns = min(_COLUMNS, len(shown))
    high = _TILE + 14
    sheet = Image.new("RGB", (columns * _TILE, math.ceil(len(shown) / columns) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for i, item in enumerate(shown):
        x, y = i % columns * _TILE, i // columns * high
        if item.thumbnail is None:
            draw.rectangle((x + 2, y + 2, x + _TILE - 4, y + _TILE - 4), fill="lightgrey")
        else:
            sheet.paste(item.thumbnail, (x + 2, y + 2))
        draw.text((x + 2, y + _TILE), item.reason, fill="black")
    return sheet


def _aside(out: Path) -> Path:
    return out / f".{IMAGES}.partial"


def _refuse(source: Path, out: Path) -> None:
    """Refuse to touch anything that an interrupted preparation did not leave."""
    aside = _aside(out)
    if (out / REPORT).exists():
        raise InvalidInput("out_exists", f"{out} already holds a prepared set.", field="out", given=str(out))
    if (out / IMAGES).exists():
        message = f"{out / IMAGES} exists already, and no {REPORT} beside it says that it was prepared here."
        raise InvalidInput("out_exists", message, field="out", given=str(out), allowed=f"a folder without {IMAGES}/")
    refuse_inside(source, out)
    if source.resolve().is_relative_to(aside.resolve()):
        message = f"The source {source} lies in {aside}, which is removed."
        raise InvalidInput("out_exists", message, field="out", given=str(out))


def _none_kept(source: Path, dropped: Sequence[Dropped], sheet: Path) -> InvalidInput:
    counted = in_words(count_reasons(item.reason for item in dropped))
    first = f"the first, {dropped[0].name}: {dropped[0].why}"
    message = f"None of {len(dropped)} pictures can be kept: {counted}; {first}. They are shown in {sheet}."
    return InvalidInput("no_images", message, field="data", given=str(source))


def _gather(
    source: Path, out: Path, progress: Progress, allow_private: bool
) -> tuple[Sequence[str], Callable[[str], bytes], list[Dropped], set[str]]:
    """Give the names of the pictures, how to read one, what is not among them, and which of that are no pictures."""
    addresses = read_addresses(source)
    if addresses is None:
        collection: Collection = open_collection(source)
        apart = ((name, why.partition(": ")) for name, why in collection.unused.items())
        others = [Dropped(name, why, detail) for name, (why, _, detail) in apart]
        return collection.names, collection.read, others, set(collection.unused)
    folder = out / "downloads"
    fetched, failures = download(addresses, folder, partial(progress, "download"), allow_private=allow_private)
    lost = [Dropped(address, "not fetched", why) for address, why in failures.items()]
    return list(fetched), lambda address: (folder / fetched[address]).read_bytes(), lost, set()


def _decoded(
    names: Sequence[str], read: Callable[[str], bytes]
) -> Iterator[tuple[str, str, faces.Picture | InvalidInput | OSError]]:
    """Give (name, digest, picture or what went wrong) in order, decoding a few at once."""

    def one(name: str) -> tuple[str, str, faces.Picture | InvalidInput | OSError]:
        try:
            data = read(name)
        except OSError as error:
            return name, "", error
        digest = hashlib.sha256(data).hexdigest()
        try:
            return name, digest, decoders().decode(data).result()
        except InvalidInput as error:
            return name, digest, error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), _AT_ONCE):  # decoded pictures are large: only so many at a time
            yield from pool.map(one, names[start : start + _AT_ONCE])


class _Judge:
    """A decision about one picture after the other: the training image made of it, or why there is none."""

    def __init__(self, size: int, min_side: int, finder: faces.FaceFinder) -> None:
        self.size, self.min_side, self.finder = size, min_side, finder
        self._files: dict[str, str] = {}  # digest → first name
        self._near = NearDuplicates()

    def __call__(
        self, name: str, digest: str, picture: faces.Picture | InvalidInput | OSError
    ) -> Image.Image | Dropped:
        if isinstance(picture, InvalidInput | OSError):
            return Dropped(name, *reason(picture))
        small = picture.pixels.copy()
        small.thumbnail((_TILE - 4, _TILE - 4))
        if (first := self._files.setdefault(digest, name)) != name:
            return Dropped(name, "same file", first, small)
        if is_collage(picture.pixels):
            return Dropped(name, "collage", "", small)
        target = faces.align(picture, self.size, self.finder)
        wanted = self.finder.domain.kind
        if wanted is not None and (target.face is None or target.faces[target.face].kind != wanted):
            return Dropped(name, "no face", "", small)
        side = math.dist(target.quad[0], target.quad[3])
        if side < self.min_side:
            return Dropped(name, "too small", f"{side:.0f} pixels, of {self.min_side} wanted", small)
        image = Image.fromarray(target.pixels)
        if (twin := self._near.find(image)) is not None:
            return Dropped(name, "near duplicate", twin, small)
        self._near.add(name, image)
        return image


def _free_name(folder: Path, name: str) -> Path:
    """Give a file for an image: its own path as PNG, the old ending kept where two would collide."""
    if "://" in name:
        return folder / (hashlib.sha256(name.encode()).hexdigest()[:24] + ".png")
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
    path = PurePosixPath(*parts)
    plain = folder / path.with_suffix(".png")
    return plain if not plain.exists() else folder / path.with_name(f"{path.name}.png")
