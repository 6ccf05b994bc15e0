"""`ddpm evaluate wholeness`: afterwards best of K knows what people found broken."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ddpm_core import load
from ddpm_core.bundle import read_bundle
from ddpm_service.cli import app

MODELS = Path(__file__).parents[2] / "models"
SELFIES = 12


def wholeness(*arguments):
    return CliRunner().invoke(app, ["evaluate", "wholeness", "--device", "cpu", *map(str, arguments)])


def write_sheet(path, side):
    """Twelve selfies, three faces each, of which the first is torn."""
    random = np.random.default_rng(0)
    faces = random.integers(60, 190, (3 * SELFIES, 1, 1, 3)) + np.zeros((1, side, side, 1), np.int64)
    faces[:, side // 4 : -side // 4, side // 4 : -side // 4] += 40
    faces[::3, side // 2 :: 2, ::2] -= 50
    np.savez(path.with_suffix(".faces.npz"), A=faces.astype(np.uint8))
    rows = {str(i + 1): {"target": f"{i // 3}.png", "seed": i} for i in range(3 * SELFIES)}
    path.with_suffix(".key.json").write_text(json.dumps({"columns": {"A": {}}, "rows": rows}))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("row", "column", "broken"), *((i + 1, "A", "no" if i % 3 else "yes") for i in range(3 * SELFIES))]
        )
    return path


def test_it_learns_says_how_good_it_is_and_all_else_in_the_bundle_stays(tmp_path):
    bundle = shutil.copytree(max((MODELS / "faces-64").iterdir()), tmp_path / "bundle")
    before = read_bundle(bundle).manifest
    result = wholeness(bundle, write_sheet(tmp_path / "look.csv", 64))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "learnt from 36 judged faces of 12 selfies" in result.stdout
    (share,) = re.findall(r"it tells which in (\d+)% of 24 pairs", result.stdout)
    assert int(share) > 80
    after = read_bundle(bundle).manifest
    assert after.statistics.wholeness.images == 36
    same = before.statistics.model_copy(update={"wholeness": after.statistics.wholeness})
    assert after == before.model_copy(update={"statistics": same})
    load(bundle)  # its checksums still hold


@pytest.mark.parametrize(
    ("side", "says"),
    [
        (32, "keeps one size throughout, so it has no features to go by."),
        (8, "0 selfies have both a broken and a whole face of 32 px among those judged; it takes 12."),
    ],
)
def test_what_teaches_nothing_is_said_in_a_line_and_nothing_is_written(write_toy_bundle, tmp_path, side, says):
    bundle = write_toy_bundle(tmp_path / "toy")
    before = (bundle / "bundle.json").read_bytes()
    result = wholeness(bundle, write_sheet(tmp_path / "look.csv", side), "--run-code")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ddpm evaluate wholeness: ")
    assert says in result.stderr.replace("\n", " ")
    assert (bundle / "bundle.json").read_bytes() == before
