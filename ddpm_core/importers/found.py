"""What a source says of itself, whatever its form: tensors by name, and settings where it carries them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # as in emaModel


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


def choose(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> Choice | None:
    """Find the network that has the `wanted` names under some prefix; averaged weights win.

    Wrappers (Lightning, Accelerate, DataParallel, `torch.compile`, EMA helpers, diffusion classes) only put words
    before a network's own names. So no list of wrappers is needed: the prefix is what stands before most of the names.

    Returns:
        None where no wanted name is found at all.
    """
    wanted = set(wanted)
    votes: dict[str, int] = {}
    for key in tensors:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in wanted:
                prefix = "".join(f"{part}." for part in parts[:i])
                votes[prefix] = votes.get(prefix, 0) + 1
    if not votes:
        return None
    most = max(votes.values())
    candidates = [prefix for prefix, count in votes.items() if 2 * count > most]
    best = min(candidates, key=lambda prefix: (not is_averaged(prefix), -votes[prefix], len(prefix), prefix))
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
        words = set(_WORD_BEGINS.sub("_", part).lower().split("_"))
        if words & {"online", "exp"}:  # exp_avg is an optimizer's
            return False
        if words & {"ema", "swa", "avg", "average", "averaged", "shadow"}:
            return True
    return False
