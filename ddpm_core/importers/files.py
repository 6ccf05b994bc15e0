"""Which files of a folder hold weights, as diffusers, Accelerate and `torch.save` write them, and what they hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ddpm_core.errors import InvalidInput
from ddpm_core.importers import pickles

_FILE = re.compile(
    r"(?P<stem>diffusion_pytorch_model|(?:pytorch_)?model(?:_\d+)?)(?:\.(?P<variant>[a-z]\w*))?"
    r"(?:-(?P<number>\d{5})-of-(?P<count>\d{5})(?:\.(?P<former>[a-z]\w*))?)?\.(?P<ending>safetensors|bin)"
)
_INDEX = re.compile(
    r"(?P<stem>diffusion_pytorch_model|(?:pytorch_)?model(?:_\d+)?)\.(?P<ending>safetensors|bin)\.index"
    r"(?:\.(?P<variant>[a-z]\w*))?\.json"
)
# Which weights are preferred: averaged ones, then 32 bit before 16 bit, and raw ones beside averaged ones last.
_VARIANTS = ("ema", "", "fp32", "bf16", "fp16", "non_ema")


@dataclass(frozen=True)
class WeightSet:
    """One network's weights in one or several files.

    Attributes:
        folder, stem, variant, ending: as the files are named; no variant is "".
        index: file that says which tensor lies where; None where there is none.
        files: those without an index, in order.
    """

    folder: Path
    stem: str
    variant: str
    ending: str
    index: str | None
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The index, or the first file."""
        return self.index or self.files[0]

    @property
    def rank(self) -> tuple[int, bool, bool, str]:
        """What is taken first: as diffusers does, but averaged weights before others."""
        variant = _VARIANTS.index(self.variant) if self.variant in _VARIANTS else len(_VARIANTS)
        return variant, self.ending != "safetensors", self.index is None, self.name

    def read(self) -> dict[str, Tensor]:
        """Read all tensors.

        Raises:
            InvalidInput: a file is missing, is refused, or holds other tensors than its index says.
        """
        if self.index is None:
            return {key: value for file in self.files for key, value in _tensors(self.folder / file).items()}
        held: dict[str, dict[str, Tensor]] = {}
        weights = {}
        for key, file in _places(self.folder / self.index).items():
            if file not in held:
                held[file] = _tensors(self.folder / file)
            if key not in held[file]:
                raise _wrong(self.folder / self.index, f"it says that {key} lies in {file}, which does not hold it")
            weights[key] = held[file][key]
        return weights


def weight_sets(folder: Path) -> list[WeightSet]:
    """Give the sets of weights in a folder, the one to take first first.

    Raises:
        InvalidInput: shards without an index that are not one whole set.
    """
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    indices = [(name, found) for name in names if (found := _INDEX.fullmatch(name))]
    sets = [WeightSet(folder, found["stem"], found["variant"] or "", found["ending"], name) for name, found in indices]
    indexed = {(each.stem, each.variant, each.ending) for each in sets}
    shards: dict[tuple[str, str, str], list[re.Match[str]]] = {}
    for name in names:
        if (found := _FILE.fullmatch(name)) is None:
            continue
        key = (found["stem"], found["variant"] or found["former"] or "", found["ending"])
        if found["number"] is None:
            sets.append(WeightSet(folder, *key, None, (name,)))
        elif key not in indexed:
            shards.setdefault(key, []).append(found)
    for key, parts in shards.items():
        wanted = [f"{i + 1:05d}" for i in range(int(parts[0]["count"]))]
        if [part["number"] for part in parts] != wanted or len({part["count"] for part in parts}) > 1:
            raise _wrong(
                folder, f"{len(parts)} shards such as {parts[0][0]} are not one whole set, and no index says more"
            )
        sets.append(WeightSet(folder, *key, None, tuple(part[0] for part in parts)))
    return sorted(sets, key=lambda each: each.rank)


def unread(chosen: WeightSet) -> tuple[str, ...]:
    """Give a sentence about the shards beside an index that it does not name, as another training leaves them."""
    if chosen.index is None:
        return ()
    named = set(_places(chosen.folder / chosen.index).values())
    kin = (file.name for file in chosen.folder.iterdir() if (found := _FILE.fullmatch(file.name)) and found["number"])
    left = sorted(name for name in kin if name not in named and name.endswith(chosen.ending))
    return (f"Shards that `{chosen.index}` does not name were not read: {', '.join(left)}.",) if left else ()


def choose_set(folder: Path, sets: Sequence[WeightSet], wanted: str | None) -> tuple[WeightSet, tuple[str, ...]]:
    """Give the set to take, and a sentence that says which and why where there are several.

    Raises:
        InvalidInput: the one that is wanted by name is not there.
    """
    if wanted is not None:
        names = ", ".join(each.name for each in sets)
        for each in sets:
            if wanted == each.name:
                return each, ()
        raise InvalidInput(
            "unknown_name",
            f"{folder} has no weights called {wanted}; it has {names}.",
            field="--weights",
            given=wanted,
            allowed=names,
        )
    taken, *others = sets
    if not others:
        return taken, ()
    whys = ("their variant", "safetensors come before .bin", "an index comes before a file alone")
    why = next((why for why, a, b in zip(whys, taken.rank, others[0].rank, strict=False) if a != b), "their names")
    left = ", ".join(f"`{each.name}`" for each in others)
    return taken, (f"The weights of `{taken.name}` were taken, not those of {left}: {why}. `--weights` takes others.",)


def check_sum(file: Path, sha256: str) -> None:
    """Refuse a file of other bytes than were named.

    Raises:
        InvalidInput: it is one.
    """
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sha256.lower():
        message = f"{file} is not the file that was named: its SHA-256 is {found}."
        raise InvalidInput("wrong_checksum", message, field="sha256", given=found, allowed=sha256)


def _places(index: Path) -> Mapping[str, str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(file, str) and Path(file).name == file for file in places.values()):
            raise ValueError("a file outside the folder")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _wrong(index, f"it is no index of weights ({error})") from None
    return dict(places)


def _tensors(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise _wrong(file.parent, f"{file.name} is missing")
    held = pickles.read(file)
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise _wrong(file, "it holds more than a network's tensors")
    return held


def _wrong(place: Path, why: str) -> InvalidInput:
    return InvalidInput("wrong_source", f"{place} cannot be imported: {why}.", field="source", given=str(place))
