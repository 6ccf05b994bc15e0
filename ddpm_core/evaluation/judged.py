"""Faces that people looked at blind: what a model's eye for broken faces is learnt from, and how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_core import wholeness
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.look import faces_of, files
from ddpm_core.evaluation.tally import Answers, read_answers

MIN_SELFIES = 12
_PARTS = 6


@dataclass(frozen=True, eq=False)
class Judged:
    """Faces and what was said of them.

    Attributes:
        pixels: (N, H, H, 3) uint8.
        broken: (N,) float64, the share of those who found them broken.
        of: (N,) int64, which selfie of which sheet they were made of.
    """

    pixels: NDArray[np.uint8]
    broken: NDArray[np.float64]
    of: NDArray[np.int64]


def read_judged(tallies: Sequence[Path], side: int) -> Judged:
    """Read judged sheets of `ddpm evaluate look`; several tallies of the same faces are averaged.

    Args:
        tallies: CSV, each with its key and its faces beside it.
        side: of the model's pictures, H; faces of another size are passed over.

    Raises:
        InvalidInput: a tally, key or faces that are not there or no such thing, or too few selfies of which some faces
            are broken and some are not.
    """
    said: dict[tuple[str, bytes], tuple[NDArray[np.uint8], list[bool]]] = {}
    for tally in tallies:
        answers = read_answers(tally, files(tally)[1])
        faces = _read_faces(tally, answers)
        for (row, column), is_broken in answers.broken.items():
            face = faces[column][int(row) - 1]
            if is_broken is not None and face.shape == (side, side, 3):
                # A selfie's faces are told apart by the face itself: two who judge one sheet may have a tally each.
                key = (str(answers.rows[row]["target"]), face.tobytes())
                said.setdefault(key, (face, []))[1].append(is_broken)
    names = [name for name, _ in said]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    broken = np.array([np.mean(answer) for _, answer in said.values()])
    of = np.array([number[name] for name in names], dtype=np.int64)
    mixed = sum(np.ptp(broken[of == i]) > 0 for i in number.values())
    if mixed < MIN_SELFIES:
        message = (
            f"{mixed} selfies have both a broken and a whole face of {side} px among those judged; "
            f"it takes {MIN_SELFIES}."
        )
        raise InvalidInput("too_few_images", message, field="tallies", given=mixed, allowed=f"{MIN_SELFIES} or more")
    return Judged(np.stack([face for face, _ in said.values()]), broken, of)


def told_apart(found: Tensor, judged: Judged) -> tuple[float, int]:
    """Try the direction on selfies that it was not learnt from.

    Args:
        found: features (N, D) of the judged faces.
        judged: what was said of them.

    Returns:
        Of all pairs of a selfie, one face whole and one broken to all who said something, the share in the right order;
        and how many pairs there are.
    """
    broken, of = torch.from_numpy(judged.broken), torch.from_numpy(judged.of)
    # A sheet's selfies stand together, and sheets differ: neighbours go into different parts.
    part = of % _PARTS
    right, pairs = 0, 0
    for k in range(_PARTS):
        learnt, tried = part != k, part == k
        direction = wholeness.fit(found[learnt], broken[learnt], of[learnt], "a trial")
        scores = wholeness.score(direction, found[tried].double())
        for selfie in set(of[tried].tolist()):
            own = of[tried] == selfie
            better = scores[own][:, None] > scores[own][None]
            asked = (broken[tried][own][:, None] == 0) & (broken[tried][own][None] == 1)
            right, pairs = right + int((better & asked).sum()), pairs + int(asked.sum())
    return right / max(pairs, 1), pairs


def _read_faces(tally: Path, answers: Answers) -> dict[str, NDArray[np.uint8]]:
    path = faces_of(tally)
    try:
        with np.load(path, allow_pickle=False) as file:
            faces = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError):
        faces = {}
    ok = (each.dtype == np.uint8 and each.ndim == 4 and len(each) == len(answers.rows) for each in faces.values())
    if faces.keys() != answers.columns.keys() or not all(ok):
        message = f"{path} does not hold the faces of {tally}: `ddpm evaluate look` writes it beside its sheets."
        raise InvalidInput("not_faces", message, field="tallies", given=str(path))
    return faces
