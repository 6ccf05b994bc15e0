"""The split into training and validation images, which never leaks a person or a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ddpm_core.errors import InvalidInput


def split(
    names: Sequence[str], digests: Sequence[str], share: float, person_pattern: str = ""
) -> tuple[list[int], list[int]]:
    """Give the indices of the training and of the validation images.

    The side of an image depends only on its person (or its file, where no person is known), so it stays where it is
    when images are added or the order changes. Persons that share a file lie on one side.

    Args:
        names: path of each image.
        digests: hash of each file.
        share: part of the groups that is held back, 0..1.
        person_pattern: regular expression on the path; its first group names the person.

    Raises:
        InvalidInput: a pattern that is none, or has no group.
    """
    held = [_held_back(group, share) for group in groups(names, digests, person_pattern)]
    return [i for i, out in enumerate(held) if not out], [i for i, out in enumerate(held) if out]


def groups(names: Sequence[str], digests: Sequence[str], person_pattern: str = "") -> list[str]:
    """Name each image's group: those of one person, and those that share a file with them. Arguments as for `split`."""
    try:
        pattern = re.compile(person_pattern) if person_pattern else None
    except re.error as error:
        raise InvalidInput("bad_pattern", f"person_pattern: {error}", field="person_pattern") from error
    if pattern is not None and pattern.groups < 1:
        raise InvalidInput("bad_pattern", "person_pattern needs a group that names the person.", field="person_pattern")
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    found = []
    for name, digest in zip(names, digests, strict=True):
        match = pattern.search(name) if pattern else None
        group = f"person {match.group(1)}" if match else digest
        a, b = find(group), find(digest)
        leader[max(a, b)] = min(a, b)
        found.append(group)
    return [find(group) for group in found]


def _held_back(group: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) < share * 2**64
