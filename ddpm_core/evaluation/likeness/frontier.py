"""Which methods are worth having: those that no other beats in resemblance and realism at once, and copy nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ddpm_core.evaluation.sweep import REAL
from ddpm_core.evaluation.table import Row
from ddpm_core.plan import Mode

ALIKE = "low_pass_16"
EVERYTHING = "low_pass_16_all"
REALISTIC = "denoiser_kid"
"""What of a row is weighed: resemblance of what is no copy, that of everything, and realism; less is better."""
COPIES_ALLOWED = 0.01
"""As large a share of different photographs of one person lies below the threshold."""


def copies(row: Row) -> bool:
    """Say whether a method copies its targets, so that its resemblance does not count."""
    return row["copies"] > COPIES_ALLOWED or row[ALIKE] is None


def of_the_origin(row: Row) -> bool:
    """Say whether a row is of the guidance of the program that this one descends from."""
    return row.get("mode") == Mode.PIXEL


def of_no_mode(row: Row) -> bool:
    """Say whether a row is of a point of its own, beside the curve."""
    return "sigma_start" in row and "resemblance" not in row


def by_strength(rows: Sequence[Row]) -> list[Row]:
    """Give the origin's rows, the weakest guidance first."""
    return sorted((row for row in made(rows) if of_the_origin(row)), key=lambda row: row["guidance_loss_scale"])


def made(rows: Sequence[Row]) -> list[Row]:
    """Give the rows of images that were made, without that of real ones."""
    return [row for row in rows if row["method"] != REAL]


def frontier(rows: Sequence[Row]) -> list[Row]:
    """Give the rows that copy nothing and that no such row beats in both figures, the most alike first."""
    honest = sorted((row for row in made(rows) if not copies(row)), key=lambda row: (row[ALIKE], row[REALISTIC]))
    best: list[Row] = []
    for row in honest:
        if not best or row[REALISTIC] < best[-1][REALISTIC]:
            best.append(row)
    return best


def against_the_origin(row: Row, rows: Sequence[Row]) -> float | None:
    """Give a row's low-pass distance in parts of the origin's at equal realism, between its measured strengths.

    Of all images, copies too, for both alike. None where the origin is never as realistic.
    """
    known = [(other[EVERYTHING], other[REALISTIC]) for other in by_strength(rows)]
    y = row[REALISTIC]
    crossings = [
        x0 + (x1 - x0) * (y - y0) / (y1 - y0)
        for (x0, y0), (x1, y1) in pairwise(known)
        if min(y0, y1) <= y <= max(y0, y1) and y0 != y1
    ]
    return row[EVERYTHING] / min(crossings) if crossings else None


def nearer_than_unguided(row: Row, rows: Sequence[Row]) -> tuple[int, int] | None:
    """Give on how many targets with a face a row is nearer than unguided images, and on how many it could be."""
    unguided = next((other for other in made(rows) if other.get("mode") == Mode.NONE), None)
    if unguided is None or row is unguided:
        return None
    pairs = [
        (mine["low_pass_16"], theirs["low_pass_16"])
        for mine, theirs in zip(row["by_target"], unguided["by_target"], strict=True)
        if mine["face"]
    ]
    return sum(mine < theirs for mine, theirs in pairs), len(pairs)
