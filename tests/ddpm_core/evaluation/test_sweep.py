import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ddpm_core.data.images import decode
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.extractor import wavelet_extractor
from ddpm_core.evaluation.face_network import Faces
from ddpm_core.evaluation.reference import read_reference
from ddpm_core.evaluation.sweep import evaluate
from ddpm_core.sampling import Sampler

CELLS = [(Sampler.DDIM, 2), (Sampler.DPMPP_2M, 3)]


@pytest.fixture(scope="module")
def reference(photographs, toy):
    return read_reference(photographs, toy.bundle)


@pytest.fixture
def measure(toy, reference, tmp_path):
    def run(cells=CELLS, out=tmp_path / "new" / "figures.json", **changes):
        settings = {"num_images": 20, "seed": 0, **changes}
        settings.setdefault("reference", reference)
        return evaluate(toy, settings.pop("reference"), wavelet_extractor(), cells, out, **settings), out

    return run


def test_every_row_says_all_that_its_figures_depend_on(measure, toy, reference):
    rows, out = measure()
    assert json.loads(out.read_text(encoding="utf-8"))["rows"] == rows
    assert [(row["sampler"], row.get("num_inference_steps")) for row in rows] == [
        ("real", None),
        ("ddim", 2),
        ("dpmpp_2m", 3),
    ]
    last = rows[-1]
    assert last["weights_sha256"] == toy.bundle.manifest.checksums["unet/diffusion_pytorch_model.safetensors"]
    assert (last["model"], last["version"], last["image_size"], last["dtype"]) == ("toy", "1.0", 32, "float32")
    assert (last["num_images"], last["seed"]) == (20, 0)
    assert (last["features"], last["features_version"]) == ("wavelet_statistics", "1")
    assert (last["reference"], last["reference_images"]) == ("all", 60)
    assert last["reference_fingerprint"] == reference.fingerprint
    assert not {"fid", "kid"} & last.keys()
    assert last["kid_substitute"] > 10 * last["kid_substitute_standard_error"] > 0
    assert rows[0]["kid_substitute"] < last["kid_substitute"]  # real images are better than those of a toy


def test_rows_that_are_there_are_kept_and_only_missing_cells_are_measured(measure):
    first, out = measure(CELLS[:1])
    told = []
    second, _ = measure(report=lambda what, done, total: told.append(what))
    assert second[:2] == first
    assert set(told) == {"features of the reference", "dpmpp_2m, 3 calls"}
    third, _ = measure(seed=5)
    assert third[1]["kid_substitute"] != first[1]["kid_substitute"]
    kept = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert len(kept) == 5  # one of real images, two seeds of two cells
    told.clear()
    assert measure(report=lambda *what: told.append(what))[0] == second
    assert told == []


def test_interrupted_it_loses_the_cell_under_way_alone(measure):
    """The toy fails when it is asked for 16 steps."""
    with pytest.raises(RuntimeError):
        measure([*CELLS[:1], (Sampler.DDIM, 16), *CELLS[1:]])
    rows, out = measure(CELLS)
    assert len(rows) == len(json.loads(out.read_text(encoding="utf-8"))["rows"]) == 3
    assert [path.name for path in out.parent.iterdir()] == ["figures.json"]


def test_a_face_network_adds_its_figures(measure):
    class FaceNetwork:
        version = "1"

        def __call__(self, pixels):
            return Faces(np.full(len(pixels), 2.0), np.zeros(len(pixels)), pixels[:, 0, :8].reshape(len(pixels), -1))

    real, made = measure(CELLS[:1], look=FaceNetwork())[0]
    assert (real["whole_faces"], made["whole_faces"], made["face_network"]) == (1, 1, "1")
    assert abs(real["face_kid"]) < made["face_kid"]


def test_the_same_settings_give_the_same_figures(measure, tmp_path):
    drop = lambda rows: [{k: v for k, v in row.items() if k != "sampling_seconds"} for row in rows]  # noqa: E731
    again, _ = measure(out=tmp_path / "again.json")
    assert drop(measure()[0]) == drop(again)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_images": 19}, "num_images"),
        ({"seed": 2**32 - 19}, "seed"),
        ({"cells": [(Sampler.DDIM, 1001)]}, "num_inference_steps"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_done(measure, tmp_path, changes, field):
    with pytest.raises(InvalidInput) as caught:
        measure(**changes)
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_too_few_real_images_are_refused(measure, reference):
    few = replace(reference, names=reference.names[:19], pixels=reference.pixels[:19])
    with pytest.raises(InvalidInput, match="19 images in the reference are too few to measure; at least 20"):
        measure(reference=few)


def test_a_file_that_is_no_table_is_refused_and_left_as_it_is(measure, tmp_path):
    other = tmp_path / "notes.json"
    other.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"notes\.json is not a table of measurements"):
        measure(out=other)
    assert other.read_text(encoding="utf-8") == "[1, 2]"


def test_the_halves_of_a_reference_share_no_person(toy, drawn, tmp_path):
    for i, picture in enumerate(drawn(60, seed=0)):
        Image.fromarray(picture).save(tmp_path / f"person{i % 20}_{i}.png")
    recipe = {"validation": 0.3, "person_pattern": r"^(.+)_\d+\."}
    manifest = toy.bundle.manifest.model_copy(update={"provenance": {"recipe": recipe}})
    bundle = replace(toy.bundle, manifest=manifest)

    def persons(reference, indices):
        return {reference.names[i].split("_")[0] for i in indices}

    everybody = read_reference(tmp_path, bundle)
    held_back = read_reference(tmp_path, bundle, held_back=True)
    assert (everybody.part, held_back.part) == ("all", "held back")
    assert 0 < len(held_back.names) < 60
    for reference in (everybody, held_back):
        first, second = (persons(reference, half) for half in reference.halves)
        assert first
        assert second
        assert not first & second
        assert sum(map(len, reference.halves)) == len(reference.names)
    for name, pixels in zip(everybody.names, everybody.pixels, strict=True):
        assert (decode((tmp_path / name).read_bytes(), 32) == pixels).all()


def test_nothing_held_back_is_an_error(photographs, toy):
    with pytest.raises(InvalidInput, match="does not say that images were held back"):
        read_reference(photographs, toy.bundle, held_back=True)


def test_images_smaller_than_the_models_are_refused_and_larger_ones_scaled_down(toy, drawn, tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, side in ((small, 24), (large, 80)):
        folder.mkdir()
        for i, picture in enumerate(drawn(4, seed=0, side=side)):
            Image.fromarray(picture).save(folder / f"{i}.png")
    with pytest.raises(InvalidInput, match=r"is 24×24, smaller than the model's 32 px"):
        read_reference(small, toy.bundle)
    assert read_reference(large, toy.bundle).pixels.shape == (4, 32, 32, 3)


def test_unreadable_files_are_told(toy, drawn, tmp_path):
    Image.fromarray(drawn(1, seed=0)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    reference = read_reference(tmp_path, toy.bundle)
    assert reference.names == ("good.png",)
    assert [name for name, _ in reference.dropped] == ["bad.png"]


def test_a_grey_model_is_measured_against_grey_images(toy, photographs):
    bundle = replace(toy.bundle, manifest=toy.bundle.manifest.model_copy(update={"channels": 1}))
    pixels = read_reference(photographs, bundle).pixels
    assert pixels.shape == (60, 32, 32, 3)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
