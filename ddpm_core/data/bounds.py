"""How much is taken from a source that somebody else made: a zip, or a list of addresses."""

from __future__ import annotations

import zipfile

MAX_BYTES = 64 * 2**20
"""Of one picture, wherever it comes from."""
MAX_MEMBERS = 5_000_000
"""Pictures of one source."""
MAX_RATIO = 100
"""A zip unpacks to so many times its size at most, or to one picture."""


def check_zip(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse a zip that makes very much of few bytes; only its directory is looked at.

    Args:
        archive: opened.
        size: of its file, in bytes.

    Raises:
        OSError: it has too many members, they share bytes, or they unpack to too much.
    """
    members = archive.infolist()
    check_count(len(members))
    if sum(member.compress_size for member in members) > size:
        raise OSError("its members lie one over the other")
    if sum(member.file_size for member in members) > max(MAX_BYTES, MAX_RATIO * size):
        raise OSError(f"it unpacks to more than {MAX_RATIO} times its size")


def check_count(count: int) -> None:
    """Refuse a source of too many pictures.

    Raises:
        OSError: it is one.
    """
    if count > MAX_MEMBERS:
        raise OSError(f"it has {count} members, and at most {MAX_MEMBERS} are taken")
