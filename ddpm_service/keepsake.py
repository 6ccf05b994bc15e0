"""What people keep of an answer: an enlarged face, a card, a labelled sheet; and the settings inside such a picture.

All that is drawn keeps the mark that its faces are AI-generated, and the settings of the first one.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ddpm_api import GeneratedImage, InvalidRequest, OutputFormat, parameters_in, save_marked

_SIDE = 512  # px of a face on a card
_CELL = 256  # px of a face on a sheet, at least
_GAP = 24
_PAPER, _INK, _SOFT = "#f6f3ee", "#27211b", "#665c51"
_TITLE = "Lookalike"
_MARK = "AI-generated"
_FORGOTTEN = {"num_images", "best_of", "preview_every", "return_target", "detect_only", "output_format"}
_NAMED = {"celebrity": (0.25, 0.0), "likeness": (0.5,), "faithful": (0.75,)}
"""What each mode comes to by itself; `celebrity` also takes 0 where there is no face."""


def enlarged(face: GeneratedImage, side: int) -> bytes:
    """Give a face as a PNG, `side` px square, smoothly resized, with its settings and its true size inside."""
    made = Image.open(io.BytesIO(face.data))
    return save_marked(_fitted(made, side), OutputFormat.PNG, made)


def card(selfie: bytes, face: GeneratedImage) -> bytes:
    """Draw the selfie beside one face, with title, AI mark and seed: a PNG of 1096 × 660 px."""
    made = Image.open(io.BytesIO(face.data))
    paper, pen = _paper(2 * _SIDE + 3 * _GAP, _SIDE + 4 * _GAP + 52)
    for column, (picture, name) in enumerate([(Image.open(io.BytesIO(selfie)), "You"), (made, "Look-alike")]):
        left = _GAP + column * (_SIDE + _GAP)
        paper.paste(_fitted(picture, _SIDE), (left, _GAP))
        pen.text((left, _GAP + _SIDE + 8), name, _SOFT, _font(24))
    foot = paper.height - _GAP
    pen.text((_GAP, foot), _TITLE, _INK, _font(36), anchor="ls")
    pen.text((paper.width - _GAP, foot), f"{_MARK} · seed {face.seed}", _SOFT, _font(24), anchor="rs")
    return save_marked(paper, OutputFormat.PNG, made)


def labelled_sheet(selfie: bytes | None, faces: Sequence[GeneratedImage], output_format: OutputFormat) -> bytes:
    """Draw the selfie and all faces, with their seeds and how near they are, in rows as near to a square as they go."""
    cells = [(face.data, _words(face)) for face in faces]
    if selfie is not None:
        cells.insert(0, (selfie, "You"))
    pictures = [Image.open(io.BytesIO(file)) for file, _ in cells]
    side = max(_CELL, *(max(picture.size) for picture in pictures))
    columns = math.ceil(math.sqrt(len(cells)))
    rows = math.ceil(len(cells) / columns)
    below = 40
    paper, pen = _paper(columns * (side + _GAP) + _GAP, rows * (side + below) + 3 * _GAP)
    for index, (picture, (_, words)) in enumerate(zip(pictures, cells, strict=True)):
        row, column = divmod(index, columns)
        left, top = _GAP + column * (side + _GAP), _GAP + row * (side + below)
        paper.paste(_fitted(picture, side), (left, top))
        pen.text((left, top + side + 6), words, _SOFT, _font(18))
    pen.text((_GAP, paper.height - _GAP), f"{_TITLE} · {_MARK}", _SOFT, _font(20), anchor="ls")
    return save_marked(paper, output_format, pictures[-len(faces)])


def settings_in(file: bytes) -> dict[str, Any]:
    """Give what a picture made here was asked for, as fields of a request with `model` and `version`: one such face.

    Raises:
        InvalidRequest: not a picture, or none that carries its settings (`no_settings`, field `like`).
    """
    try:
        with Image.open(io.BytesIO(file)) as picture:
            said = json.loads(parameters_in(picture))
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict):
        message = "The file carries no settings: it is not a picture made here, or another program has saved it anew."
        raise InvalidRequest("no_settings", message, field="like", allowed="a picture that was made here")
    settings = {name: value for name, value in said.items() if name not in _FORGOTTEN}
    if settings.get("resemblance") in _NAMED.get(settings.get("mode", ""), ()):
        del settings["resemblance"]  # the mode says it
    elif "resemblance" in settings:
        del settings["mode"]
    if settings.get("face") == 0:
        del settings["face"]  # the largest is taken anyway, and where there is none no other is meant
    return settings | {"num_images": 1}


def _words(face: GeneratedImage) -> str:
    near = "" if face.resemblance_score is None else f" · {100 * face.resemblance_score:.0f} % near"
    return f"seed {face.seed}{near}"


def _paper(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    paper = Image.new("RGB", (width, height), _PAPER)
    return paper, ImageDraw.Draw(paper)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    return picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
