"""What a source says of itself, whatever its form: tensors by name, and settings where it carries them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddpm_core.errors import InvalidInput

_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # as in emaModel
_AVERAGED = re.compile(r"(ema|swa|avg|average|averaged|shadow)s?\d*")
_RAW = {"online", "non", "no", "raw", "exp"}  # exp_avg is an optimizer's
_NO_NETWORKS = {"exp", "optimizer", "optim", "grad"}


@dataclass(frozen=True)
class Found:
    """A source that was read.

    Attributes:
        source: what it is called in the model card: a file's or a repository's name.
        tensors: all that it holds, by full name, prefixes and other networks' tensors included.
        network: settings of the network, in the words of `unet/config.json`; empty if it carries none.
        scheduler: settings of the schedule, in diffusers' words; empty if it carries none.
        image_size: side in pixels, or None.
        prediction_type: in diffusers' words, or None.
        ema: whether all its tensors are known to be averaged.
        notes: what is worth telling, a sentence each.
        schedule_note: how the schedule was found out, a sentence, or None.
        revision: the commit of a repository, or None.
        beside: files in its folder that are named as averaged weights.
        prefix: what stands before the names of the weights to take, where it was said by hand.
    """

    source: str
    tensors: Mapping[str, Tensor]
    network: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    prediction_type: str | None = None
    ema: bool = False
    notes: tuple[str, ...] = ()
    schedule_note: str | None = None
    revision: str | None = None
    beside: tuple[str, ...] = ()
    prefix: str | None = None


@dataclass(frozen=True)
class Choice:
    """The tensors of one network among all that a checkpoint holds.

    Attributes:
        tensors: by the network's own names.
        prefix: what stood before those names.
        ema: whether they are averaged weights.
    """

    tensors: Mapping[str, Tensor]
    prefix: str
    ema: bool


def choose(tensors: Mapping[str, Tensor], wanted: Collection[str], prefix: str | None = None) -> Choice | None:
    """Find the network that has the `wanted` names under some prefix, or under the one that is given.

    Averaged weights win; between networks of equal names whose weights differ nobody but the caller can choose.

    Wrappers (Lightning, Accelerate, DataParallel, `torch.compile`, EMA helpers, diffusion classes) only put words
    before a network's own names. So no list of wrappers is needed: the prefix is what stands before most of the names.

    Returns:
        None where no wanted name is found at all.

    Raises:
        InvalidInput: there are several such networks, or none under `prefix`.
    """
    wanted = set(wanted)
    votes: dict[str, int] = {}
    for key in tensors:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in wanted:
                place = "".join(f"{part}." for part in parts[:i])
                votes[place] = votes.get(place, 0) + 1
    if not votes:
        return None
    most = max(votes.values())
    candidates = [place for place, count in votes.items() if 2 * count > most]
    networks = [each for each in candidates if not _words(each) & _NO_NETWORKS] or candidates
    best = min(networks, key=lambda place: (not is_averaged(place), -votes[place], len(place), place))
    if prefix is not None:
        best = _named(prefix, networks)
    else:
        _ask_between(best, networks, votes, tensors)
    inner = tuple(other for other in candidates if other != best and other.startswith(best))
    mine = {
        key.removeprefix(best): value
        for key, value in tensors.items()
        if key.startswith(best) and not (inner and key.startswith(inner))
    }
    return Choice(mine, best, is_averaged(best))


def is_averaged(prefix: str) -> bool:
    """Say whether a prefix names averaged weights; the word nearest to the network decides."""
    for part in reversed(prefix.split(".")):
        words = _words(part)
        if words & _RAW:
            return False
        if any(_AVERAGED.fullmatch(word) for word in words):
            return True
    return False


def unused_averages(found: Found, choice: Choice) -> dict[str, int]:
    """Count the tensors beside the chosen ones that are named as if averaged, by what stands before their names."""
    counts: dict[str, int] = {}
    for key in found.tensors:
        place = re.match(r"(?i)(?:[^.]*\.)*?[^.]*(?:ema|averag|shadow)[^.]*\.?", key)
        if place is not None and not (
            key.startswith(choice.prefix) and key.removeprefix(choice.prefix) in choice.tensors
        ):
            counts[place[0]] = counts.get(place[0], 0) + 1
    return counts


def side_of(value: Any) -> int | None:
    """Give the side of a square size, 64 or [64, 64]; None where it is none."""
    sides = list(value) if isinstance(value, list | tuple) else [value]
    square = sides and all(type(side) is int and side == sides[0] for side in sides)
    return sides[0] if square else None


def _words(name: str) -> set[str]:
    return {word for part in name.split(".") for word in _WORD_BEGINS.sub("_", part).lower().split("_")}


def _named(prefix: str, networks: Collection[str]) -> str:
    wanted = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    if wanted not in networks:
        names = ", ".join(sorted(networks))
        raise InvalidInput(
            "unknown_name",
            f"There is no network under {prefix}; there are networks under {names}.",
            field="--weights",
            given=prefix,
            allowed=names,
        )
    return wanted


def _ask_between(best: str, networks: Collection[str], votes: Mapping[str, int], tensors: Mapping[str, Tensor]) -> None:
    """Refuse to choose between networks of which nothing tells which is meant."""
    alike = [
        each
        for each in networks
        if each != best
        and votes[each] == votes[best]
        and is_averaged(each) == is_averaged(best)
        and any(
            key.startswith(best) and not _equal(value, tensors.get(each + key.removeprefix(best)))
            for key, value in tensors.items()
        )
    ]
    if alike:
        names = ", ".join(sorted({best, *alike}))
        raise InvalidInput(
            "answer_needed",
            f"There are several networks of the same names, under {names}. Please say which: --weights PREFIX.",
            field="--weights",
            allowed=names,
        )


def _equal(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and bool((a == b).all())
