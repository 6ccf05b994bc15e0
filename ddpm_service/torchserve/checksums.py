"""Archives whose bytes were vouched for: a file as `sha256sum` writes it says which."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ddpm_service.archive import ArchiveError

_LINE = re.compile(r"([0-9a-f]{64})\s+\*?(\S+)")


def check(archive: Path, listed: Path) -> None:
    """Compare an archive with its line.

    Args:
        archive: to be loaded.
        listed: the file of checksums, read anew each time.

    Raises:
        ArchiveError: it has no line, its bytes are others, or one of both files cannot be read.
    """
    try:
        lines = map(_LINE.fullmatch, (line.strip() for line in listed.read_text().splitlines()))
        sums = {line[2]: line[1] for line in lines if line}
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{archive.name} cannot be checked by {listed}: {type(error).__name__}") from error
    if archive.name not in sums:
        raise ArchiveError(f"{archive.name} has no line in {listed.name}")
    if sums[archive.name] != found:
        raise ArchiveError(f"{archive.name} is not the one of {listed.name}")
