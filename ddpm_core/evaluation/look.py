"""A sheet to look at: targets down, ways to make a face across, in an order that only a key tells.

Where eyes and figures disagree, eyes win. They must not know what they look at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.draw import finish
from ddpm_core.evaluation.likeness.material import Target
from ddpm_core.evaluation.likeness.methods import Method
from ddpm_core.evaluation.likeness.sweep import states
from ddpm_core.evaluation.sweep import Report, describe_model
from ddpm_core.evaluation.tally import write_blank
from ddpm_core.pipeline import Pipeline
from ddpm_core.pixels import Pixels
from ddpm_core.whole import write_whole

_CELL = 160  # px: large enough to judge an eye, small enough for eight rows on a screen
_GAP, _LABEL = 8, 20


@dataclass(frozen=True, eq=False)
class Column:
    """The faces of one method.

    Attributes:
        settings: all that decides what is in it, with the model's name and version and the method's.
        pictures: (R, H, H, 3) uint8, one a row.
    """

    settings: dict[str, Any]
    pictures: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Row:
    """What one line of the sheet aims at.

    Attributes:
        name: of the target.
        pixels: (H, H, 3) uint8.
        seed: of its images.
    """

    name: str
    pixels: Pixels
    seed: int


@dataclass(frozen=True, eq=False)
class Look:
    """A sheet, which may be cut into several; its rows are called 1, 2, 3 and its columns A, B, C."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]

    @property
    def key(self) -> dict[str, Any]:
        """What each column and row is."""
        return {
            "columns": {letter: column.settings for letter, column in zip(ascii_uppercase, self.columns, strict=False)},
            "rows": {str(i): {"target": row.name, "seed": row.seed} for i, row in enumerate(self.rows, 1)},
        }


def make_look(
    models: Sequence[tuple[Pipeline, Sequence[Target]]],
    methods: Sequence[Method],
    shuffle: np.random.Generator,
    *,
    num_images: int = 1,
    seed: int = 0,
    report: Report = lambda *_: None,
) -> Look:
    """Make the faces of each method of each model, from the same noise, and shuffle the columns.

    Args:
        models: each with the same targets at its own size.
        methods: ways to make a face.
        shuffle: gives the order.
        num_images: rows a target.
        seed: of the first row; the next ones count up.
        report: told how far it is.

    Raises:
        InvalidInput: more columns than letters, or calls that a model does not have.
    """
    settings = [
        {**describe_model(pipeline), **method.settings(pipeline.bundle)}
        for pipeline, targets in models
        for method in methods
    ]
    if len(settings) > len(ascii_uppercase):
        message = f"{len(settings)} columns are too many to look at; a sheet has at most {len(ascii_uppercase)}."
        raise InvalidInput("out_of_range", message, field="methods", given=len(settings), allowed="1..26")
    columns: list[Column] = []
    for pipeline, targets in models:
        for method in methods:
            about = settings[len(columns)]
            report(f"{about['model']} {about['version']}, {method.name}", len(columns), len(settings))
            columns.append(
                Column(about, finish(pipeline.denoiser, states(pipeline, targets, method, num_images, seed)))
            )
    aims = [target for target in models[0][1] for _ in range(num_images)]
    rows = tuple(Row(target.name, target.pixels, seed + i) for i, target in enumerate(aims))
    return Look(rows, tuple(columns[i] for i in shuffle.permutation(len(columns))))


def write_look(look: Look, out: Path, rows_a_sheet: int) -> list[Path]:
    """Write the sheets, the key, the blank tally and the faces as they are beside one another; see `files`.

    Returns:
        The sheets, the tally, the key and the faces.
    """
    starts = range(0, len(look.rows), rows_a_sheet)
    several = len(starts) > 1
    sheets = [out.with_stem(f"{out.stem}-{i}") if several else out for i in range(1, len(starts) + 1)]
    out.parent.mkdir(parents=True, exist_ok=True)
    for sheet, start in zip(sheets, starts, strict=True):
        _draw(look, start, min(start + rows_a_sheet, len(look.rows))).save(sheet)
    tally, key = files(out)
    faces = faces_of(tally)
    pictures: dict[str, Any] = {name: c.pictures for name, c in zip(ascii_uppercase, look.columns, strict=False)}
    np.savez_compressed(faces, **pictures)
    write_blank(tally, len(look.rows), ascii_uppercase[: len(look.columns)])
    write_whole(key, json.dumps(look.key, indent=2, ensure_ascii=False) + "\n")
    return [*sheets, tally, key, faces]


def files(out: Path) -> tuple[Path, Path]:
    """Give the tally's and the key's path of a sheet or of a tally."""
    return out.with_suffix(".csv"), out.with_suffix(".key.json")


def faces_of(tally: Path) -> Path:
    """Give the path of the faces on a tally's sheet: an array (R, H, H, 3) uint8 by the letter of each column."""
    return tally.with_suffix(".faces.npz")


def _draw(look: Look, start: int, stop: int) -> Image.Image:
    """Draw some rows: the target, then every column; each cell under its own name."""
    width, height = (count * (_CELL + _GAP) + _GAP for count in (len(look.columns) + 1, stop - start))
    sheet = Image.new("RGB", (width + _GAP, height + (stop - start) * _LABEL), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, i in enumerate(range(start, stop)):
        row = look.rows[i]
        cells = [(f"{i + 1}: {row.name}", row.pixels)]
        cells += [
            (f"{i + 1}{letter}", column.pictures[i])
            for letter, column in zip(ascii_uppercase, look.columns, strict=False)
        ]
        y = _GAP + line * (_CELL + _GAP + _LABEL)
        for place, (words, pixels) in enumerate(cells):
            x = _GAP + place * (_CELL + _GAP) + _GAP * (place > 0)
            while font.getlength(words) > _CELL:
                words = words[:-1]
            pen.text((x, y), words, fill="black", font=font)
            large = Image.fromarray(pixels).resize((_CELL, _CELL), Image.Resampling.BICUBIC)
            sheet.paste(large, (x, y + _LABEL))
    return sheet
