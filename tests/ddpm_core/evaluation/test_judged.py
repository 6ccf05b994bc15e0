"""What people said of faces becomes what a model's eye is learnt from."""

import csv
import json

import numpy as np
import pytest
import torch

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.judged import read_judged, told_apart

SIDE = 4
SELFIES = 12


@pytest.fixture
def sheet(tmp_path):
    """Writes a sheet of twelve selfies, two rows each, two columns; the first row's A is broken unless said."""

    def write(name, said=None, side=SIDE):
        said = {} if said is None else said
        path = tmp_path / f"{name}.csv"
        rows = {str(i + 1): {"target": f"{i // 2}.png", "seed": i} for i in range(2 * SELFIES)}
        shades = np.arange(4 * SELFIES, dtype=np.uint8).reshape(2, 2 * SELFIES)
        faces = np.broadcast_to(shades[..., None, None, None], (*shades.shape, side, side, 3))
        np.savez(path.with_suffix(".faces.npz"), A=faces[0], B=faces[1])
        path.with_suffix(".key.json").write_text(json.dumps({"columns": {"A": {}, "B": {}}, "rows": rows}))
        with path.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["row", "column", "broken"])
            for row in rows:
                for column in "AB":
                    usual = "yes" if column == "A" and int(row) % 2 else "no"
                    lines.writerow([row, column, said.get(f"{row}{column}", usual)])
        return path

    return write


def test_faces_come_with_what_was_said_and_with_their_selfie(sheet):
    judged = read_judged([sheet("one")], SIDE)
    assert judged.pixels.shape == (4 * SELFIES, SIDE, SIDE, 3)
    assert judged.broken.sum() == SELFIES
    assert np.bincount(judged.of).tolist() == [4] * SELFIES
    broken = judged.broken == 1
    assert sorted(judged.pixels[broken][:, 0, 0, 0].tolist()) == list(range(0, 2 * SELFIES, 2))


def test_two_who_judge_the_same_faces_are_averaged(sheet):
    judged = read_judged([sheet("one"), sheet("two", {"1A": "no", "2A": "yes"})], SIDE)
    assert len(judged.pixels) == 4 * SELFIES
    assert sorted(judged.broken[judged.of == 0]) == [0, 0, 0.5, 0.5]


def test_what_was_left_blank_is_left_out(sheet):
    assert len(read_judged([sheet("one", {"1B": "", "2A": ""})], SIDE).pixels) == 4 * SELFIES - 2


def test_faces_of_another_size_teach_nothing(sheet):
    with pytest.raises(InvalidInput, match="0 selfies have both a broken and a whole face of 8 px"):
        read_judged([sheet("one")], 8)
    both = read_judged([sheet("one"), sheet("large", side=8)], SIDE)
    assert len(both.pixels) == 4 * SELFIES


def test_selfies_whose_faces_are_all_alike_are_too_few(sheet):
    with pytest.raises(InvalidInput, match=r"11 selfies have both .* it takes 12\."):
        read_judged([sheet("one", {"1A": "no"})], SIDE)


@pytest.mark.parametrize("there", ["nothing", "no archive", "other arrays", "a column less", "a row less"])
def test_a_sheet_without_its_faces_is_told(sheet, there):
    tally = sheet("one")
    faces = tally.with_suffix(".faces.npz")
    faces.unlink()
    if there == "no archive":
        faces.write_text("faces")
    elif there == "other arrays":
        np.savez(faces, A=np.zeros(3), B=np.zeros(3))
    elif there == "a column less":
        np.savez(faces, A=np.zeros((2 * SELFIES, SIDE, SIDE, 3), np.uint8))
    elif there == "a row less":
        np.savez(faces, **dict.fromkeys("AB", np.zeros((2 * SELFIES - 1, SIDE, SIDE, 3), np.uint8)))
    with pytest.raises(InvalidInput, match=r"one\.faces\.npz does not hold the faces of .*one\.csv"):
        read_judged([tally], SIDE)


def test_the_share_told_apart_is_of_selfies_that_were_not_learnt_from(sheet):
    """A feature tells in five of six selfies, and the contrary in the sixth, which no other teaches."""
    judged = read_judged([sheet("one")], SIDE)
    broken, of = torch.from_numpy(judged.broken), torch.from_numpy(judged.of)
    found = torch.where(of % 6 == 5, -broken, broken)[:, None]
    assert told_apart(found, judged) == (5 / 6, 3 * SELFIES)
