"""`ddpm sample` and `ddpm inspect`: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner

from ddpm_core.schedule import doubled, from_diffusers
from ddpm_service.cli import app

BUNDLE = str(sorted((Path(__file__).parents[2] / "models").glob("faces-64/*"))[-1])


def ddpm(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_sample_writes_one_png_a_seed_with_its_settings_inside(tmp_path: Path) -> None:
    code, out, _ = ddpm(
        "sample", BUNDLE, "--out", str(tmp_path / "faces"), "--num-images", "3", "--num-inference-steps", "2",
        "--seed", "41", "--sampler", "ddim",
    )  # fmt: skip
    assert code == 0
    paths = [Path(line) for line in out.split()]
    assert [path.name for path in paths] == [f"seed-{seed:010d}.png" for seed in (41, 42, 43)]
    with Image.open(paths[1]) as picture:
        assert picture.size == (64, 64)
        about = json.loads(picture.text["parameters"])
    assert about["seed"] == 42
    assert about["sampler"] == "ddim"
    assert about["num_inference_steps"] == 2


def test_sample_makes_one_sheet_where_a_file_is_named(tmp_path: Path) -> None:
    sheet = tmp_path / "grid.png"
    code, out, _ = ddpm("sample", BUNDLE, "--out", str(sheet), "--num-images", "4", "--num-inference-steps", "1")
    assert code == 0
    assert out.split() == [str(sheet)]
    with Image.open(sheet) as picture:
        assert picture.width >= 128


def test_sample_is_guided_by_a_selfie(tmp_path: Path) -> None:
    selfie = tmp_path / "me.jpg"
    Image.fromarray(skimage.data.astronaut()).save(selfie)
    code, _, _ = ddpm(
        "sample", BUNDLE, "--image", str(selfie), "--mode", "faithful", "--out", str(tmp_path / "out"),
        "--num-images", "1", "--seed", "0",
    )  # fmt: skip
    assert code == 0
    with Image.open(tmp_path / "out" / "seed-0000000000.png") as picture:
        assert json.loads(picture.text["parameters"])["mode"] == "faithful"


def test_pixel_guidance_through_the_network_is_another_way_to_the_same_selfie(tmp_path: Path) -> None:
    selfie = tmp_path / "me.jpg"
    Image.fromarray(skimage.data.astronaut()).save(selfie)
    made = {}
    for name, how in (("at the image", []), ("through", ["--through-network"])):
        code, _, said = ddpm(
            "sample", BUNDLE, "--image", str(selfie), "--mode", "pixel", "--guidance-loss-scale", "200", "--out",
            str(tmp_path / name), "--num-images", "1", "--num-inference-steps", "4", "--seed", "0", *how,
        )  # fmt: skip
        assert code == 0, said
        made[name] = np.asarray(Image.open(tmp_path / name / "seed-0000000000.png")).astype(float)
    assert np.abs(made["through"] - made["at the image"]).mean() > 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["sample", BUNDLE, "--out", "x", "--mode", "likeness", "--through-network"], 1, "--mode pixel"),
        (["sample", BUNDLE, "--out", "x", "--face-detector", "gone.onnx"], 1, "detector's file is not found"),
        (["serve", "--face-detector", "gone.onnx"], 2, "gone.onnx"),
        (["sample", "nowhere", "--out", "x"], 1, "there is no such folder"),
        (["sample", BUNDLE, "--out", "x", "--num-inference-steps", "1001"], 1, "num_inference_steps"),
        (["sample", BUNDLE, "--out", "x", "--mode", "likeness"], 1, "needs an image"),
        (["sample", BUNDLE, "--out", "x", "--dtype", "int8"], 1, "float32"),
        (["sample", BUNDLE, "--out", "x", "--sampler", "euler"], 2, "sampler"),
        (["sample", BUNDLE], 2, "--out"),
        (["inspect", "nowhere"], 1, "there is no such folder"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_a_wrong_use_is_one_clear_line_and_the_right_exit_code(
    arguments: list[str], code: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got, _, said = ddpm(*arguments)
    assert got == code
    assert word in said
    assert "Traceback" not in said


def test_inspect_says_what_a_model_is() -> None:
    code, out, _ = ddpm("inspect", BUNDLE, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["name"] == "faces-64"
    assert facts["image_size"] == 64
    assert facts["checksums"] == "ok"
    assert facts["parameters"] > 1_000_000


def test_inspect_prints_a_page_to_read() -> None:
    code, out, _ = ddpm("inspect", BUNDLE)
    first, _, *lines = out.splitlines()
    assert (code, first) == (0, "faces-64 2.1: human faces, 64 px")
    assert lines[0].startswith("terms       Research use only")
    assert "diffusion   predicts v; 1,000 noise levels, cosine" in (line.rstrip() for line in lines)
    assert lines[-1].startswith("files       whole")
    assert "{" not in out


def test_inspect_says_where_a_models_noise_levels_follow_no_named_curve(tmp_path: Path) -> None:
    bundle = tmp_path / "doubled"
    shutil.copytree(BUNDLE, bundle)
    file = bundle / "scheduler" / "scheduler_config.json"
    own = doubled(from_diffusers(json.loads(file.read_text()))).config
    file.write_text(json.dumps({**own, "prediction_type": "v_prediction"}))
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**manifest, "checksums": {}}))
    code, out, _ = ddpm("inspect", str(bundle))
    assert code == 0
    assert "predicts v; 1,000 noise levels of its own" in out
    assert json.loads(ddpm("inspect", str(bundle), "--json")[1])["schedule"] == "trained_betas"


COMMANDS = [
    "pack",
    "serve",
    "generate",
    "sample",
    "prepare",
    "train",
    "resume",
    "export",
    "import",
    "evaluate",
    "evaluate samples",
    "evaluate likeness",
    "evaluate gate",
    "inspect",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str) -> None:
    code, out, _ = ddpm(*command.split(), "--help")
    assert code == 0
    assert f"ddpm {command}" in out
    assert "Example" in out
