"""Why files were left out of a set: in a few words, which are counted, and what exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ddpm_core.errors import InvalidInput

LINKED_AGAIN = "linked folder that is read already"
HIDDEN = "hidden"
NO_IMAGE = "no image"
UNKNOWN_ENDING = "image with an unknown ending"
UNREADABLE = "unreadable"

_REASONS = {
    "too_small": "too small",
    "too_many_pixels": "too large",
    "not_an_image": NO_IMAGE,
    "animated": "animated",
    "preview_only": "raw data",
}


def reason(error: InvalidInput | OSError) -> tuple[str, str]:
    """Give the reason for which a file cannot be used, and what exactly."""
    if isinstance(error, InvalidInput):
        return _REASONS.get(error.code, "damaged"), error.message
    return UNREADABLE, error.strerror or str(error) or type(error).__name__


def count_reasons(whys: Iterable[str]) -> Mapping[str, int]:
    """Count by reason what begins with one and a colon, the most frequent first."""
    return dict(Counter(why.partition(":")[0] for why in whys).most_common())


def in_words(counts: Mapping[str, int]) -> str:
    """Give counts as "3 damaged, 1 too small"."""
    return ", ".join(f"{count} {why}" for why, count in counts.items())


def told(left_out: Sequence[tuple[str, str]]) -> str:
    """Give a sentence about files that were left out, each with its reason."""
    counted = in_words(count_reasons(why for _, why in left_out))
    name, why = left_out[0]
    return f"{len(left_out)} files left out ({counted}); the first: {name}: {why}"
