"""`ddpm evaluate gate`: afterwards the bundle knows what is usual, and `auto` goes by it."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddpm_core import load
from ddpm_core.bundle import read_bundle
from ddpm_service.cli import app


def gate(*arguments):
    return CliRunner().invoke(app, ["evaluate", "gate", "--run-code", *map(str, arguments)])


@pytest.fixture
def bundle(write_toy_bundle, tmp_path):
    return write_toy_bundle(tmp_path / "toy")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(80):
        picture = np.full((32, 32, 3), random.integers(90, 150, 3), np.uint8)
        picture[8:24, 8:24] += np.uint8(random.integers(10, 60))
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    return folder


def test_real_pictures_are_looked_at_and_kept_in_the_bundle(bundle, pictures):
    before = read_bundle(bundle).manifest
    result = gate(bundle, "--reference", pictures)
    assert result.exit_code == 0, result.stderr
    after = read_bundle(bundle).manifest
    assert after.statistics.gate.images == 80
    assert f"80 images of {pictures.name} (all, " in after.statistics.gate.source
    assert after.model_copy(update={"statistics": before.statistics}) == before
    load(bundle, run_code=True)  # its checksums still hold


def test_from_then_on_a_target_has_a_score(bundle, pictures):
    def judgement():
        pipeline = load(bundle, run_code=True)
        return pipeline.judge(pipeline.aim((pictures / "03.png").read_bytes()))

    assert judgement().score is None
    gate(bundle, "--reference", pictures)
    assert not judgement().is_strange  # it is one of those


def test_without_pictures_the_model_looks_at_its_own_samples(bundle):
    result = gate(bundle, "--num-images", 64)
    assert result.exit_code == 0, result.stderr
    assert read_bundle(bundle).manifest.statistics.gate.source == "64 of its own samples"


def test_too_few_pictures_and_a_reference_that_is_missing_are_refused_and_nothing_is_written(bundle, pictures):
    before = (bundle / "bundle.json").read_text()
    few = gate(bundle, "--reference", pictures, "--num-images", 10)
    assert (few.exit_code, few.stderr) == (
        1,
        "ddpm evaluate gate: The gate's statistics need at least 64 pictures, there are 10.\n",
    )
    none = gate(bundle, "--held-back")
    assert none.exit_code == 1
    assert "--reference" in none.stderr
    assert gate(bundle, "--reference", bundle / "nowhere").exit_code == 1
    assert (bundle / "bundle.json").read_text() == before
