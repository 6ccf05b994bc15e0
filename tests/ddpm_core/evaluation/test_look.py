"""A sheet that does not tell what made its faces, and the count of those that were found broken."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.likeness.material import read_targets
from ddpm_core.evaluation.likeness.methods import parse_methods
from ddpm_core.evaluation.look import Column, Look, Row, faces_of, files, make_look, write_look
from ddpm_core.evaluation.tally import Count, count


@pytest.fixture(scope="module")
def targets(toy, persons):
    return read_targets([persons], toy, num_targets=2)


def make(toy, targets, order=0, methods="none:2,likeness:2,6.2:8:.5:calls=2"):
    return make_look([(toy, targets)], parse_methods(methods), np.random.default_rng(order), num_images=2, seed=7)


def test_the_key_tells_what_each_column_is(toy, targets):
    look = make(toy, targets)
    letters = [settings["method"] for settings in look.key["columns"].values()]
    assert sorted(letters) == ["6.2:8:0.5:calls=2", "likeness:2", "none:2"]
    for letter, column in zip("ABC", look.columns, strict=True):
        method = look.key["columns"][letter]["method"]
        (alone,) = make(toy, targets, methods=method).columns
        assert (column.pictures == alone.pictures).all()


def test_columns_stand_in_an_order_that_changes(toy, targets):
    orders = {tuple(column.settings["method"] for column in make(toy, targets, order=i).columns) for i in range(5)}
    assert len(orders) > 1


def test_rows_are_targets_again_and_again_from_seeds_that_count_up(toy, targets):
    look = make(toy, targets)
    first, second = (target.name for target in targets)
    assert list(look.key["rows"].values()) == [
        {"target": first, "seed": 7},
        {"target": first, "seed": 8},
        {"target": second, "seed": 9},
        {"target": second, "seed": 10},
    ]
    assert all(len(column.pictures) == 4 for column in look.columns)


def test_several_models_share_a_sheet(toy, targets):
    models = [(toy, targets), (toy, targets)]
    look = make_look(models, parse_methods("none:2"), np.random.default_rng(0))
    assert [settings["model"] for settings in look.key["columns"].values()] == ["toy", "toy"]


def test_more_columns_than_letters_are_refused_before_anything_is_made(toy, targets):
    numbers = "/".join(str(i) for i in range(1, 28))
    with pytest.raises(InvalidInput, match="27 columns are too many"):
        make(toy, targets, methods=f"none:{numbers}")


def flat(shade):
    return np.full((16, 16, 3), shade, np.uint8)


@pytest.fixture
def look():
    """Three rows, two columns; each cell of one shade of grey."""
    rows = tuple(Row(f"a_photograph_with_a_long_name_{i}.png", flat(10 + i), i) for i in range(3))
    columns = [
        Column({"model": "toy", "version": "1.0", "method": name}, np.stack([flat(first + i) for i in range(3)]))
        for name, first in (("one", 100), ("other", 200))
    ]
    return Look(rows, tuple(columns))


def shades(path):
    """The greys that fill a cell of the sheet."""
    with Image.open(path) as picture:
        values, counts = np.unique(np.asarray(picture.convert("L")), return_counts=True)
    return {int(value) for value, count in zip(values, counts, strict=True) if count >= 128**2 and value < 255}


def test_a_sheet_shows_each_target_and_each_face_large_enough_to_judge(look, tmp_path):
    sheet, tally, key, faces = write_look(look, tmp_path / "new" / "look.png", 3)
    assert shades(sheet) == {10, 11, 12, 100, 101, 102, 200, 201, 202}
    assert (tally, key) == files(sheet)
    assert json.loads(key.read_text(encoding="utf-8")) == look.key
    assert faces == faces_of(tally)
    with np.load(faces) as kept:
        assert {name: kept[name].tolist() for name in kept} == {
            name: column.pictures.tolist() for name, column in zip("AB", look.columns, strict=True)
        }


def test_a_long_sheet_is_cut_into_several_with_one_tally(look, tmp_path):
    first, second, tally, *_ = write_look(look, tmp_path / "look.png", 2)
    assert (first.name, second.name, tally.name) == ("look-1.png", "look-2.png", "look.csv")
    assert shades(first) == {10, 11, 100, 101, 200, 201}
    assert shades(second) == {12, 102, 202}


# the count


@pytest.fixture
def judged(look, tmp_path):
    """Fill in the tally: the first column is broken in rows 1 and 2, the second in none, one cell is left blank."""
    _, tally, key, _ = write_look(look, tmp_path / "look.png", 3)
    lines = list(csv.reader(tally.read_text(encoding="utf-8").splitlines()))
    answers = {("1", "A"): "yes", ("2", "A"): " Yes ", ("3", "A"): "no", ("1", "B"): "no", ("2", "B"): "NO"}
    filled = [[row, column, answers.get((row, column), "")] for row, column, _ in lines[1:]]
    assert len(filled) == 6
    tally.write_text("\n".join(",".join(line) for line in [lines[0], *filled]), encoding="utf-8-sig")
    return tally, key


def test_broken_faces_are_counted_by_method_the_fewest_first(judged):
    best, worst = count(*judged)
    assert (best.settings["method"], best.broken, best.judged, best.unjudged) == ("other", 0, 2, 1)
    assert (worst.settings["method"], worst.broken, worst.judged, worst.unjudged) == ("one", 2, 3, 0)


@pytest.mark.parametrize(
    ("broken", "judged", "interval"),
    [(0, 10, (0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1)), (0, 0, (0, 1))],
)
def test_the_interval_is_wilsons(broken, judged, interval):
    assert Count({}, broken, judged, 0).interval == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("row,column,broken\n1,A,maybe\n", "line 2: broken is 'maybe'; allowed: yes, no or nothing"),
        ("row,column,broken\n1,A,yes\n1,A,no\n", "line 3: 1A comes twice"),
        ("row,column,broken\n1,C,yes\n", "line 2: the sheet has no cell 1C; allowed: 1A to 3B"),
        ("row,column,broken\n1,A\n", "is not a tally"),
        ("a picture", "is not a tally"),
        ("", "is not a tally"),
    ],
)
def test_a_tally_that_cannot_be_counted_is_said(judged, text, says):
    tally, key = judged
    tally.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=says):
        count(tally, key)


@pytest.mark.parametrize("text", ["no key", "[]", '{"columns": {}}'])
def test_what_is_no_key_is_said(judged, text):
    tally, key = judged
    key.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match="is not the key of a sheet"):
        count(tally, key)


def test_files_that_are_not_there_are_said(judged, tmp_path):
    tally, key = judged
    with pytest.raises(InvalidInput, match="is not a tally"):
        count(tmp_path / "nowhere.csv", key)
    with pytest.raises(InvalidInput, match="is not the key of a sheet"):
        count(tally, tmp_path / "nowhere.json")
