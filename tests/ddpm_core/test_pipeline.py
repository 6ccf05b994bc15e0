"""A model in memory, as Python users hold it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from ddpm_core import Pipeline, load
from ddpm_core.errors import InvalidInput
from ddpm_core.pipeline import Step

PORTRAIT = Image.fromarray(data.astronaut())
CUP = Image.fromarray(data.coffee())
FEW: dict[str, Any] = {"num_inference_steps": 2, "seed": 3}


@pytest.fixture
def toy(tmp_path: Path, write_toy_bundle: Any) -> Path:
    return write_toy_bundle(tmp_path / "toy")


@pytest.fixture
def pipeline(toy: Path) -> Pipeline:
    return load(toy, device="cpu", dtype="float32", run_code=True)


def test_a_selfie_may_be_at_hand_in_any_way(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    PORTRAIT.save(path)
    with path.open("rb") as file:
        ways = [path, str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes()), PORTRAIT, np.asarray(PORTRAIT)]
        made = [pipeline(image=way, **FEW)[0] for way in ways]
    assert len({image.tobytes() for image in made}) == 1
    assert made[0].settings["mode"] == "celebrity"


def test_a_phones_picture_that_pillow_has_opened_stands_upright(pipeline: Pipeline) -> None:
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    PORTRAIT.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=turned)
    opened, plain = (pipeline(image=image, **FEW)[0] for image in (Image.open(file), PORTRAIT))
    assert opened.tobytes() == plain.tobytes()


def test_align_is_passed_on(pipeline: Pipeline) -> None:
    ways = ("auto", "center", "100,0,300,200", (100, 0, 300, 200))
    framed, middle, box, numbers = (pipeline(image=PORTRAIT, align=align, **FEW)[0] for align in ways)
    assert framed.tobytes() != middle.tobytes()
    assert box.tobytes() == numbers.tobytes()
    assert numbers.settings["align"] == "100,0,300,200"
    assert (framed.settings["align"], framed.settings["face"]) == ("auto", 0)
    with pytest.raises(InvalidInput, match="face"):
        pipeline(image=PORTRAIT, face=7, **FEW)


def test_what_was_decided_is_a_warning_in_words(pipeline: Pipeline) -> None:
    with pytest.warns(UserWarning, match="no face|No face"):
        pipeline(image=CUP, **FEW)


def test_diffusers_names_are_understood(pipeline: Pipeline) -> None:
    ours = pipeline(num_images=2, num_inference_steps=2, seed=9)
    theirs = pipeline(num_images_per_prompt=2, num_inference_steps=2, generator=torch.Generator().manual_seed(9))
    assert [image.tobytes() for image in ours] == [image.tobytes() for image in theirs.images]
    with pytest.raises(InvalidInput, match="twice"):
        pipeline(num_images=1, num_images_per_prompt=2)
    with pytest.raises(InvalidInput, match="One generator"):
        pipeline(num_images=2, generator=[torch.Generator(), torch.Generator()])


def test_a_callback_hears_of_each_step_and_can_see_it(pipeline: Pipeline) -> None:
    heard: list[tuple[int, int, tuple[int, int]]] = []

    def on_step(step: Step) -> None:
        heard.append((step.number, step.total, step.previews[0].size))

    pipeline(num_inference_steps=3, seed=0, on_step=on_step)
    assert heard == [(1, 3, (32, 32)), (2, 3, (32, 32)), (3, 3, (32, 32))]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_saved_pictures_carry_the_mark_and_their_settings_also_enlarged_ones(
    pipeline: Pipeline, tmp_path: Path, suffix: str
) -> None:
    _, second = pipeline(num_images=2, num_inference_steps=2, seed=5)
    second.resize((64, 64)).save(tmp_path / f"face.{suffix}")
    with Image.open(tmp_path / f"face.{suffix}") as saved:
        assert saved.size == (64, 64)
        assert b"trainedAlgorithmicMedia" in saved.info["xmp"]
        comment = saved.getexif().get_ifd(0x8769).get(0x9286, b"")
        inside = json.loads(saved.info.get("parameters") or comment[8:])
    assert (inside["seed"], inside["num_inference_steps"], inside["num_images"]) == (6, 2, 1)
    assert inside["model"] == "toy"


def test_it_goes_by_its_first_name_too(pipeline: Pipeline) -> None:
    (called,), (sampled,) = pipeline(num_images=1, seed=3), pipeline.sample(num_images=1, seed=3)
    assert np.array_equal(called, sampled)


def test_it_says_what_it_is(pipeline: Pipeline) -> None:
    assert repr(pipeline) == "<toy 1.0, 32 px, on cpu in float32>"


@pytest.mark.parametrize("device", ["foo", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_here_is_told_with_those_that_are(toy: Path, device: str) -> None:
    with pytest.raises(InvalidInput, match=r"there is: cpu") as refused:
        load(toy, device=device)
    assert refused.value.field == "device"


def test_a_gpu_is_the_current_one_before_a_network_is_read_and_timed(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Read(Exception):
        pass

    def read(*_: object, **__: object) -> None:
        raise Read

    happened: list[object] = []
    monkeypatch.setattr("torch.empty", lambda size, device: None)  # it is here
    monkeypatch.setattr("torch.cuda.set_device", happened.append)
    monkeypatch.setattr("ddpm_core.bundle.Bundle.load_network", read)
    with pytest.raises(Read):
        load(toy, device="cuda:1")
    assert happened == [torch.device("cuda", 1)]
