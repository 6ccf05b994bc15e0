"""The count of broken faces on a sheet that was looked at blind, method by method."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_core.errors import InvalidInput
from ddpm_core.whole import write_whole

_HEADINGS = ["row", "column", "broken"]
_ANSWERS = {"yes": True, "no": False, "": None}
_Z = 1.96  # of an interval that holds the truth 95 times of 100


@dataclass(frozen=True)
class Count:
    """How many faces of one column are broken.

    Attributes:
        settings: what the column is.
        broken: of those judged.
        judged: with yes or no.
        unjudged: left blank.
    """

    settings: Mapping[str, Any]
    broken: int
    judged: int
    unjudged: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the share's 95 % interval (Wilson 1927); 0 and 1 where nothing was judged."""
        if not self.judged:
            return 0.0, 1.0
        n, share = self.judged, self.broken / self.judged
        middle = share + _Z**2 / (2 * n)
        half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        return (middle - half) / (1 + _Z**2 / n), (middle + half) / (1 + _Z**2 / n)


def write_blank(path: Path, rows: int, columns: Sequence[str]) -> None:
    """Write a tally to fill in: a line a cell, row by row."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(_HEADINGS)
    writer.writerows([row, column, ""] for row in range(1, rows + 1) for column in columns)
    write_whole(path, lines.getvalue())


@dataclass(frozen=True)
class Answers:
    """A tally and its key, read.

    Attributes:
        columns: what each letter is.
        rows: by their numbers, the target and seed of each.
        broken: (row, column) → yes, no, or None where it was left blank.
    """

    columns: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Mapping[str, Any]]
    broken: Mapping[tuple[str, str], bool | None]


def count(tally: Path, key: Path) -> list[Count]:
    """Count the broken faces of every column, the fewest first; errors as of `read_answers`."""
    answers = read_answers(tally, key)
    counts = []
    for name, settings in answers.columns.items():
        given = [answer for (_, column), answer in answers.broken.items() if column == name]
        judged = [answer for answer in given if answer is not None]
        counts.append(Count(settings, sum(judged), len(judged), len(answers.rows) - len(judged)))
    return sorted(counts, key=lambda count: count.broken / max(count.judged, 1))


def read_answers(tally: Path, key: Path) -> Answers:
    """Read what was found broken on a sheet.

    Raises:
        InvalidInput: no tally, no key, a cell that the key does not have or that comes twice, or an answer that is
            neither yes, no nor blank.
    """
    try:
        known = json.loads(key.read_text(encoding="utf-8"))
        columns, rows = known["columns"], known["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInput("not_a_key", f"{key} is not the key of a sheet.", field="key", given=str(key)) from None
    answers: dict[tuple[str, str], bool | None] = {}
    for number, line in enumerate(_lines(tally), 2):
        row, column, answer = (word.strip() for word in line)
        if row not in rows or column not in columns:
            _refuse(tally, number, f"the sheet has no cell {row}{column}", allowed=f"1A to {len(rows)}{max(columns)}")
        if (row, column) in answers:
            _refuse(tally, number, f"{row}{column} comes twice", allowed="each cell once")
        if answer.lower() not in _ANSWERS:
            _refuse(tally, number, f"broken is {answer!r}", allowed="yes, no or nothing")
        answers[row, column] = _ANSWERS[answer.lower()]
    return Answers(columns, rows, answers)


def _lines(tally: Path) -> list[list[str]]:
    try:
        lines = list(csv.reader(io.StringIO(tally.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error):
        lines = []
    if not lines or [word.strip() for word in lines[0]] != _HEADINGS or any(len(line) != 3 for line in lines):
        message = f"{tally} is not a tally: a table with the columns {', '.join(_HEADINGS)}."
        raise InvalidInput("not_a_tally", message, field="tally", given=str(tally))
    return lines[1:]


def _refuse(tally: Path, number: int, what: str, allowed: str) -> None:
    message = f"{tally}, line {number}: {what}; allowed: {allowed}."
    raise InvalidInput("unknown_value", message, field="tally", given=what, allowed=allowed)
