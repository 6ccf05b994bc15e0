"""Lost sectors in kinds of files that have no checksums, and whose decoders do not tell."""

from __future__ import annotations

import numpy as np

_SECTOR = 512


def refuse_holes(coded: bytes) -> None:
    """Refuse compressed pixels in which a whole sector is one byte again and again: they look like noise otherwise.

    Raises:
        ValueError: there is such a sector.
    """
    sectors = np.frombuffer(coded, np.uint8, len(coded) // _SECTOR * _SECTOR).reshape(-1, _SECTOR)
    if (sectors.max(axis=1, initial=0) == sectors.min(axis=1, initial=255)).any():
        raise ValueError("a sector is lost")
