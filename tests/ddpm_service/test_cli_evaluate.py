import json
import zipfile
from importlib import import_module

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddpm_core.evaluation import face_figures
from ddpm_core.evaluation.face_network import Faces
from ddpm_service.cli import app
from ddpm_service.cli.evaluate_faces import face_network

PLOTS = ["schedule", "forward", "backward", "losses", "table", "samples", "copies"]


@pytest.fixture(autouse=True)
def no_face_network(monkeypatch):
    """It takes a quarter of a second a picture."""
    for command in ("evaluate", "evaluate_likeness"):
        module = import_module(f"ddpm_service.cli.{command}")
        monkeypatch.setattr(module, "face_network", lambda domain: None)


def ddpm(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory, write_toy_bundle):
    return write_toy_bundle(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for i in range(60):
        picture = np.full((32, 32, 3), random.integers(0, 256, 3), np.uint8)
        picture[8:24, 8:24] = random.integers(0, 256, 3)
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def packed(photographs, tmp_path_factory):
    """The photographs in a zip: aligned faces, two of each person."""
    path = tmp_path_factory.mktemp("packed") / "faces.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i, photograph in enumerate(sorted(photographs.iterdir())):
            file.write(photograph, f"person{i // 2}_{i % 2}.png")
    return path


@pytest.fixture
def evaluate(model, photographs, tmp_path):
    return lambda *arguments: ddpm(
        *("evaluate", "samples", model, "--run-code", "--reference", photographs, "--out", tmp_path / "figures.json"),
        *("--num-images", 20, "--device", "cpu", "--dtype", "float32", *arguments),
    )


def test_a_sweep_prints_a_table_and_writes_it(evaluate, tmp_path):
    result = evaluate("--sampler", "ddim,dpmpp_2m", "--num-inference-steps", "2,3")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["sampler", "steps", "n", "kid_substitute"]
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["real", "20", lines[1].split()[2]],
        ["ddim", "2", "20"],
        ["ddim", "3", "20"],
        ["dpmpp_2m", "2", "20"],
        ["dpmpp_2m", "3", "20"],
    ]
    assert lines[6].startswith("toy 1.0 at 32 px; reference: 60 images, all, ")
    assert "features: wavelet_statistics 1; seed 0" in lines[6]
    assert "fid" not in result.stdout
    assert len(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["rows"]) == 5


def test_called_again_it_goes_on_where_it_was(evaluate, tmp_path):
    first = evaluate("--num-inference-steps", "2")
    before = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["rows"]
    second = evaluate("--num-inference-steps", "2,3")
    after = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["rows"]
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_without_a_number_of_steps_it_is_the_models_own(evaluate, tmp_path):
    assert evaluate().exit_code == 0
    rows = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["rows"]
    assert (rows[-1]["sampler"], rows[-1]["num_inference_steps"]) == ("ddpm", 25)


def test_where_no_face_network_is_installed_it_says_how_to_get_one(monkeypatch, capsys):
    monkeypatch.setattr(face_figures, "installed", lambda: False)
    assert face_network("human_face") is None
    assert "pip install 'ddpm-lookalike[measure]'" in capsys.readouterr().err
    assert face_network("cat_face") is None  # which it could not judge anyway
    assert capsys.readouterr().err == ""


def test_figures_of_faces_stand_beside_the_others(evaluate, monkeypatch):
    class Network:
        version = "1"

        def __call__(self, pixels):
            return Faces(np.full(len(pixels), 2.0), np.zeros(len(pixels)), pixels[:, 0, :8].reshape(len(pixels), -1))

    monkeypatch.setattr(import_module("ddpm_service.cli.evaluate"), "face_network", lambda domain: Network())
    heading, _, row, *_ = evaluate("--num-inference-steps", "2").stdout.splitlines()
    shown = dict(zip(heading.split(), row.replace(" ± ", "±").split(), strict=True))
    assert (shown["whole_faces"], shown["face_asymmetry"]) == ("1.000", "0.000")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler", "ddim,euler"], "--sampler: 'euler' is not one of ddpm, ddim, dpmpp_2m, lcm."),
        (["--num-inference-steps", "5,"], "--num-inference-steps: '' is not a number of steps."),
        (["--num-inference-steps", "2000"], "num_inference_steps must be between 1 and the start level 1000."),
        (["--num-images", "3"], "3 samples are too few to measure; at least 20 are needed"),
        (["--reference", "nowhere"], "There is no folder, zip or list nowhere."),
        (["--inception", "nowhere.pt"], "nowhere.pt cannot be used as the Inception network: there is no such file."),
        (["--held-back"], "does not say that images were held back"),
    ],
)
def test_a_failure_is_one_clear_line_on_standard_error_and_exit_code_1(evaluate, arguments, says, tmp_path):
    result = evaluate(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ddpm evaluate samples: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_unreadable_images_of_the_reference_are_said(evaluate, photographs, tmp_path):
    for path in photographs.iterdir():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data" / "zz.png").write_bytes(b"no image")
    result = evaluate("--reference", tmp_path / "data", "--num-inference-steps", "1")
    assert result.exit_code == 0
    assert result.stderr.startswith("1 files left out (1 no image); the first: zz.png: no image: ")


@pytest.fixture
def likeness(model, packed, tmp_path):
    return lambda *arguments: ddpm(
        *("evaluate", "likeness", model, "--run-code", "--targets", packed, "--reference", packed),
        *("--out", tmp_path / "likeness.json", "--num-targets", 5, "--num-images", 4),
        *("--methods", "none:2,likeness:2", "--person-pattern", r"^(.+)_\d\."),
        *("--device", "cpu", "--dtype", "float32", *arguments),
    )


def test_likeness_prints_a_table_and_writes_it_as_figures_text_and_picture(likeness, tmp_path):
    result = likeness()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["method", "calls", "n", "low-pass"]
    assert [line.split()[:3] for line in lines[2:4]] == [["none:2", "2", "20"], ["likeness:2", "2", "20"]]
    assert lines[4].startswith("toy 1.0 at 32 px, weights ")
    assert lines[5:] == [str(tmp_path / f"likeness.{suffix}") for suffix in ("json", "md", "png")]
    rows = json.loads((tmp_path / "likeness.json").read_text(encoding="utf-8"))["rows"]
    assert [row["method"] for row in rows] == ["real", "none:2", "likeness:2"]
    assert "| likeness:2 |" in (tmp_path / "likeness.md").read_text(encoding="utf-8")
    assert size(tmp_path / "likeness.png")[0] > 800


def test_likeness_called_again_goes_on_where_it_was(likeness, tmp_path):
    likeness("--methods", "none:2")
    before = json.loads((tmp_path / "likeness.json").read_text(encoding="utf-8"))["rows"]
    assert likeness().exit_code == 0
    assert json.loads((tmp_path / "likeness.json").read_text(encoding="utf-8"))["rows"][: len(before)] == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--methods", "none,blend"],
            "--methods: 'blend' is not one of: auto, faithful, likeness, celebrity",
        ),
        (["--methods", "none:2000"], "num_inference_steps must be between 1 and the start level 1000."),
        (["--num-images", "1"], "1 images of each of 5 targets with a face are too few to measure; at least 20"),
        (["--num-images", "17"], "num_images must be in 1..16."),
        (["--reference", "nowhere.zip"], "There is no folder, zip or list nowhere.zip."),
        (["--targets", "nowhere.zip"], "There is no folder, zip or list nowhere.zip."),
        (["--person-pattern", "(never)"], "No person has two photographs in the reference"),
        (["--person-pattern", "("], "person_pattern: "),
        (["--held-back"], "does not say that images were held back"),
    ],
)
def test_a_likeness_that_fails_says_why_in_one_line(likeness, arguments, says, tmp_path):
    result = likeness(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ddpm evaluate likeness: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_targets_that_holds_no_picture_is_said(likeness, tmp_path):
    (tmp_path / "empty").mkdir()
    result = likeness("--targets", tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There are no images in" in result.stderr


@pytest.fixture
def look(model, packed, tmp_path):
    return lambda *arguments: ddpm(
        *(
            "evaluate",
            "look",
            model,
            "--run-code",
            "--targets",
            packed,
            "--num-targets",
            3,
            "--methods",
            "none:2,likeness:2",
        ),
        *("--out", tmp_path / "look.png", "--device", "cpu", "--dtype", "float32", *arguments),
    )


def test_a_sheet_is_looked_at_and_its_broken_faces_are_counted(look, tmp_path):
    result = look()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        str(tmp_path / f"look.{suffix}") for suffix in ("png", "csv", "key.json", "faces.npz")
    ]
    assert size(tmp_path / "look.png")[0] > 400
    tally = tmp_path / "look.csv"
    tally.write_text(tally.read_text(encoding="utf-8").replace(",\n", ",no\n"), encoding="utf-8")
    counted = ddpm("evaluate", "tally", tally)
    assert (counted.exit_code, counted.stderr) == (0, "")
    lines = [line.split() for line in counted.stdout.splitlines()[1:]]
    assert {(line[2], *line[3:6]) for line in lines} == {("none:2", "0", "3", "0%"), ("likeness:2", "0", "3", "0%")}
    (tmp_path / "look.key.json").rename(tmp_path / "elsewhere.json")
    assert ddpm("evaluate", "tally", tally, "--key", tmp_path / "elsewhere.json").stdout == counted.stdout


def test_a_sheet_has_rows_for_each_image_and_is_cut_where_it_is_told(look, tmp_path):
    assert look("--num-images", 2, "--rows", 4).exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["look-1.png", "look-2.png"]


def test_what_was_judged_is_not_written_over(look, tmp_path):
    (tmp_path / "look.csv").write_text("hours of work", encoding="utf-8")
    result = look()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "look.csv is there already, and what was judged may be in it: give another --out." in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["look.csv"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--methods", "none,blend"], "--methods: 'blend' is not one of: auto, faithful, likeness"),
        (["--methods", "none:2000"], "num_inference_steps must be between 1 and the start level 1000."),
        (["--targets", "nowhere.zip"], "There is no folder, zip or list nowhere.zip."),
        (["--held-back"], "does not say that images were held back"),
    ],
)
def test_a_look_that_fails_says_why_in_one_line(look, arguments, says, tmp_path):
    result = look(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ddpm evaluate look: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_tally_without_its_key_is_told(tmp_path):
    (tmp_path / "look.csv").write_text("row,column,broken\n1,A,no\n", encoding="utf-8")
    result = ddpm("evaluate", "tally", tmp_path / "look.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ddpm evaluate tally: ")
    assert "look.key.json is not the key of a sheet." in result.stderr


def size(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize(
    "arguments",
    [
        ["schedule"],
        ["schedule", "MODEL"],
        ["forward", "PHOTOGRAPH"],
        ["backward", "MODEL", "--num-images", 2, "--num-inference-steps", 3],
        ["table", "MODEL"],
        ["table", "MODEL", "--mode", "likeness", "--sampler", "ddim", "--eta", 0.5],
        ["table", "MODEL", "--mode", "pixel"],
        ["samples", "MODEL", "--num-images", 3, "--sampler", "ddim,dpmpp_2m", "--num-inference-steps", "1,2"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:4])),
)
def test_each_plot_writes_its_picture_and_prints_its_path(arguments, model, photographs, tmp_path):
    named = {"MODEL": model, "PHOTOGRAPH": photographs / "00.png"}
    out = tmp_path / "new" / "picture.png"
    own = ["--run-code"] if arguments[0] in ("backward", "samples") else []
    result = ddpm("plot", *(named.get(a, a) for a in arguments), *own, "--out", out)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}\n", "")
    assert size(out)[0] > 400


def test_the_copy_check_writes_a_picture_and_a_table_with_the_most_alike_first(model, photographs, tmp_path):
    out = tmp_path / "copies.png"
    arguments = ("--num-images", 20, "--num-inference-steps", 2, "--seed", 3, "--device", "cpu")
    result = ddpm("plot", "copies", model, "--run-code", "--reference", photographs, "--out", out, *arguments)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n{tmp_path / 'copies.json'}\n")
    assert size(out)[0] > 400
    report = json.loads((tmp_path / "copies.json").read_text(encoding="utf-8"))
    assert report["reference_images"] == 60
    assert sorted(row["seed"] for row in report["samples"]) == list(range(3, 23))
    distances = [row["distance"] for row in report["samples"]]
    assert distances == sorted(distances)
    assert (photographs / report["samples"][0]["nearest"]).exists()


def test_losses_are_drawn_from_the_figures_of_a_run(tmp_path):
    rows = [{"step": k, "images": 32 * k, "loss": 1 / k, "validation_loss": 2 / k} for k in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = ddpm("plot", "losses", tmp_path, "--out", tmp_path / "losses.png")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'losses.png'}\n")
    assert size(tmp_path / "losses.png")[0] > 400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["losses", "nowhere"], "There is no metrics.jsonl in nowhere."),
        (["table", "nowhere"], "nowhere is not a usable bundle"),
        (["samples", "MODEL", "--run-code", "--sampler", "euler"], "'euler' is not one of ddpm, ddim, dpmpp_2m, lcm."),
        (["copies", "MODEL", "--run-code", "--reference", "nowhere"], "There is no folder, zip or list nowhere."),
    ],
)
def test_a_plot_that_fails_says_why_in_one_line(arguments, says, model, tmp_path):
    result = ddpm("plot", *(model if a == "MODEL" else a for a in arguments), "--out", tmp_path / "out.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"ddpm plot {arguments[0]}: ")
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_another_kind_is_wrong_usage(tmp_path):
    result = ddpm("plot", "schedule", "--out", tmp_path / "schedule.gif")
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


MEASURES = ("samples", "likeness", "gate", "look", "tally", "wholeness")


@pytest.mark.parametrize(
    "command",
    [*(["evaluate", name] for name in MEASURES), *(["plot", name] for name in PLOTS)],
    ids=" ".join,
)
def test_help_shows_an_example(command):
    result = ddpm(*command, "--help")
    assert result.exit_code == 0
    assert f"Example: ddpm {' '.join(command)}" in result.stdout
