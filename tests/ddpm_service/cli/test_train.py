import json
import sys

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from ddpm_service.cli.train import export, prepare, resume, train

app = typer.Typer()
for command in (prepare, train, resume, export):
    app.command()(command)

RECIPE = {
    "network": {"class": "AttentionUNet", "widths": [8, 8], "middle": 8, "heads": 2},
    "image_size": 16,
    "batch": 4,
    "steps": 4,
    "precision": "float32",
    "validation": 0.3,
    "checkpoint_every": 2,
    "sample_every": 0,
}


def ddpm(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for i in range(12):
        file = tmp_path / "pictures" / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    return tmp_path / "pictures"


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ([], ("my-cats", "")),
        (["--name", "2024", "--terms", "Private: ask me."], ("2024", "Private: ask me.")),
        (["--set", "name=other"], ("other", "")),
    ],
)
def test_a_model_has_the_name_and_the_terms_of_its_owner_not_of_the_recipe(pictures, tmp_path, said, called):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"name": "faces-64", "terms": "Of others."}), encoding="utf-8")
    out = tmp_path / "my cats"
    assert ddpm("train", pictures, "--out", out, "--recipe", recipe, "--max-steps", 2, *said).exit_code == 0
    manifest = json.loads((out / "last" / "bundle.json").read_text(encoding="utf-8"))
    assert (manifest["name"], manifest["provenance"]["terms"]) == called


def test_pictures_become_a_run_which_is_resumed(pictures, recipe, tmp_path):
    out = tmp_path / "run"
    first = ddpm("train", pictures, "--out", out, "--recipe", recipe, "--set", "batch=2", "--max-steps", 2)
    assert (first.exit_code, first.stdout) == (0, f"{out / 'last'}\n")
    assert (out / "last").resolve().name == "step-00000002"
    second = ddpm("resume", out)
    assert (second.exit_code, second.stdout) == (0, f"{out / 'last'}\n")
    assert (out / "last").resolve().name == "step-00000004"
    bundle = ddpm("export", out / "best", "--out", tmp_path / "model", "--version", "2.0")
    assert (bundle.exit_code, bundle.stdout) == (0, f"{tmp_path / 'model'}\n")
    assert json.loads((tmp_path / "model" / "bundle.json").read_text(encoding="utf-8"))["version"] == "2.0"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "nowhere", "--out", "out"], "ddpm train: There is no folder, zip or list "),
        (["train", "nowhere", "--out", "out", "--set", "batsh=2"], "Did you mean batch?"),
        (["export", "nowhere", "--out", "out"], "ddpm export: nowhere is not a usable bundle"),
        (
            ["export", "nowhere", "--out", "out", "--guide-interval", "60", "1"],
            "ddpm export: --guide-interval 60 1 must be two numbers of 0 or more, the lower one first.",
        ),
        (["resume", "nowhere"], "ddpm resume: There is no run in nowhere"),
        (["train", "nowhere", "--out", "/proc/x"], "ddpm train: /proc/x: No such file or directory."),
        (["export", "nowhere", "--out", "/proc/x"], "ddpm export: nowhere is not a usable bundle"),
        (["prepare", "nowhere", "--out", "out"], "ddpm prepare: There is no folder, zip or list nowhere."),
    ],
)
def test_a_failure_is_one_clear_line_on_standard_error_and_exit_code_1(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ddpm(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_in_a_pipe_a_run_tells_its_way_in_lines_up_to_where_it_is_to_stop(pictures, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["ddpm_service.cli.train"], "_QUIET_SECONDS", -1)
    short = ["--set", "log_every=1", "--max-steps", 2]
    told = ddpm("train", pictures, "--out", tmp_path / "run", "--recipe", recipe, *short)
    about, first, last = told.stderr.splitlines()
    assert about == "9 images, 3 held back"
    assert first.startswith("step 1 of 2  loss ")
    assert last.startswith("step 2 of 2  loss ")


def test_wrong_usage_is_exit_code_2():
    assert ddpm("train").exit_code == 2


def test_unreadable_files_are_said_and_the_rest_is_trained_on(pictures, recipe, tmp_path):
    (pictures / "bad.png").write_bytes(b"no image")
    result = ddpm("train", pictures, "--out", tmp_path / "run", "--recipe", recipe, "--max-steps", 1)
    assert result.exit_code == 0
    assert result.stderr.startswith("1 files left out (1 no image); the first: bad.png: no image:")


def test_a_prepared_set_says_what_was_left_out_and_where_it_lies(pictures, tmp_path):
    (pictures / "copy.png").write_bytes((pictures / "0.png").read_bytes())
    result = ddpm("prepare", pictures, "--out", tmp_path / "set", "--size", 16)
    assert result.stdout == f"{tmp_path / 'set' / 'images'}\n"
    assert result.stderr == "12 of 13 kept; left out: 1 same file\n"


def test_a_set_of_which_nothing_is_kept_is_a_failure(pictures, tmp_path):
    result = ddpm("prepare", pictures, "--out", tmp_path / "set", "--size", 64)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "None of 12 pictures can be kept: 12 too small" in result.stderr


def test_a_write_that_fails_points_to_the_checkpoints_where_there_are_some(pictures, recipe, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def full(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ddpm_core.training.checkpoint.save", full)
        result = ddpm("train", pictures, "--out", out, "--recipe", recipe)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "ddpm train: No space left on device.")
    ddpm("resume", out, "--max-steps", 2)
    monkeypatch.setattr("ddpm_core.training.checkpoint.save", full)
    result = ddpm("resume", out)
    assert result.exit_code == 1
    assert f"the checkpoints in {out} are whole: `ddpm resume {out}` goes on" in result.stderr


@pytest.mark.parametrize("command", ["prepare", "train", "resume", "export"])
def test_help_shows_an_example(command):
    result = ddpm(command, "--help")
    assert result.exit_code == 0
    assert f"Example: ddpm {command}" in result.stdout
