"""`ddpm generate`, against a real HTTP server."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner, Result

from ddpm_service.cli.generate import generate

app = typer.Typer(pretty_exceptions_enable=False)
app.command("generate")(generate)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "me.jpg"
    path.write_bytes(b"\xff\xd8 a photograph")
    return path


def run(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "DDPM_TOKEN": None})


def test_the_faces_and_a_sheet_are_written_and_their_paths_printed(service: Any, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "faces"
    done = run("--image", photo, "--model", "good", "--url", service.url, "--out", out)
    assert done.exit_code == 0, done.output
    paths = [out / name for name in ("face-00-seed7.png", "face-01-seed8.png", "sheet.png", "card.png")]
    assert done.stdout.splitlines() == [str(path) for path in paths]
    assert sorted(out.iterdir()) == sorted(paths)
    assert [Image.open(path).getpixel((0, 0)) for path in paths[:2]] == [(255, 0, 0), (0, 0, 255)]


def test_all_is_written_also_where_the_reader_has_read_enough(service: Any, photo: Path, tmp_path: Path) -> None:
    words = ["--image", photo, "--model", "good", "--url", service.url, "--out", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, "-c", MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert said == b"warning: The light is poor.\n"
    assert len([*(tmp_path / "out").iterdir()]) == 4


def test_the_sheet_shows_the_aligned_target_beside_the_faces(service: Any, photo: Path, tmp_path: Path) -> None:
    run("--image", photo, "--model", "good", "--url", service.url, "--out", tmp_path / "out")
    sheet = Image.open(tmp_path / "out" / "sheet.png")
    assert [sheet.getpixel(spot) for spot in ((99, 99), (400, 99), (99, 400))] == [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
    assert service.requests[0].return_target is True


def test_the_card_shows_the_nearest_face_beside_the_selfie(service: Any, photo: Path, tmp_path: Path) -> None:
    run("--image", photo, "--model", "good", "--url", service.url, "--out", tmp_path / "out")
    card = Image.open(tmp_path / "out" / "card.png")
    assert [card.getpixel(spot) for spot in ((99, 99), (700, 99))] == [(0, 0, 0), (0, 0, 255)]


def test_faces_are_enlarged_on_request(service: Any, photo: Path, tmp_path: Path) -> None:
    run("--image", photo, "--model", "good", "--url", service.url, "--out", tmp_path / "out", "--size", "96")
    with Image.open(tmp_path / "out" / "face-00-seed7.png") as face:
        assert (face.size, face.info["true_size"]) == ((96, 96), "8x8")


@pytest.mark.parametrize(("name", "kind"), [("all.png", "PNG"), ("all.JPG", "JPEG"), ("all.webp", "WEBP")])
def test_out_can_be_one_picture(service: Any, photo: Path, tmp_path: Path, name: str, kind: str) -> None:
    out = tmp_path / "new" / name
    done = run("--image", photo, "--model", "good", "--url", service.url, "--out", out)
    assert done.stdout == f"{out}\n"
    with Image.open(out) as sheet:
        assert sheet.format == kind
    assert [*out.parent.iterdir()] == [out]


def test_the_selfie_comes_by_standard_input(service: Any, tmp_path: Path) -> None:
    words = ["--image", "-", "--model", "good", "--url", service.url, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words, input=b"\xff\xd8 a photograph")
    assert done.exit_code == 0, done.output
    assert service.requests[0].image == b"\xff\xd8 a photograph"


def made(path: Path, parameters: dict[str, Any]) -> Path:
    texts = PngInfo()
    texts.add_text("parameters", json.dumps(parameters))
    Image.new("RGB", (8, 8)).save(path, pnginfo=texts)
    return path


@pytest.mark.parametrize(
    ("used", "said", "asked"),
    [
        ({"mode": "likeness", "resemblance": 0.5}, [], {"mode": "likeness"}),
        ({"mode": "celebrity", "resemblance": 0.0}, [], {"mode": "celebrity"}),
        ({"mode": "auto", "resemblance": 0.6}, [], {"resemblance": 0.6}),
        ({"mode": "auto", "resemblance": 0.6}, ["--mode", "faithful"], {"mode": "faithful"}),
        ({"mode": "likeness", "resemblance": 0.5}, ["--resemblance", "0.4"], {"resemblance": 0.4}),
        ({"mode": "pixel", "guidance_loss_scale": 9.0}, ["--num-images", "2"], {"mode": "pixel", "num_images": 2}),
    ],
)
def test_the_settings_of_a_picture_made_here_are_taken_again(
    service: Any, photo: Path, tmp_path: Path, used: dict[str, Any], said: list[str], asked: dict[str, Any]
) -> None:
    inside = {"num_images": 5, "best_of": 9, "seed": 8, "face": 0, "model": "good", "version": "2.0", **used}
    like = made(tmp_path / "like.png", inside)
    done = run("--image", photo, "--like", like, "--url", service.url, "--out", tmp_path / "out", *said)
    assert done.exit_code == 0, done.output
    request = service.requests[0]
    given = {name: getattr(request, name) for name in request.model_fields_set - {"image", "return_target"}}
    known = {"num_images": 1, "seed": 8, "guidance_loss_scale": used.get("guidance_loss_scale")} | asked
    assert given == {name: value for name, value in known.items() if value is not None}
    assert service.paths == ["/predictions/good/2.0"]


def test_a_picture_without_settings_is_wrong_usage(service: Any, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    done = run("--like", tmp_path / "plain.png", "--url", service.url, "--out", tmp_path / "out")
    assert (done.exit_code, service.paths) == (2, [])
    assert "carries no settings" in done.stderr


@pytest.mark.parametrize("line", ["a-token-of-24-characters", "alice a-token-of-24-characters\nbob another"])
def test_a_token_may_come_by_a_file(service: Any, tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens").write_text(line)
    words = ("--token-file", tmp_path / "tokens", "--model", "good", "--url", service.url, "--out", tmp_path / "out")
    assert run(*words).exit_code == 0
    assert service.headers[0]["Authorization"] == "Bearer a-token-of-24-characters"
    (tmp_path / "tokens").write_text("\n")
    assert run(*words).exit_code == 2


def test_only_what_was_said_is_asked_for(service: Any, photo: Path, tmp_path: Path) -> None:
    place = ["--url", service.url, "--out", tmp_path / "out"]
    options = (
        "--num-images 3 --mode celebrity --sampler ddim --num-inference-steps 9 --eta 0.5 --seed 5 --align 0,0,9,9"
    )
    options += " --face 0 --best-of 6 --output-format webp"
    run("--image", photo, "--model", "good", *options.split(), *place)
    run("--model", "good", "--model-version", "2.0", "--token", "secret", *place)
    full, bare = service.requests
    assert {name: str(getattr(full, name)) for name in full.model_fields_set - {"image", "return_target"}} == {
        "num_images": "3",
        "mode": "celebrity",
        "sampler": "ddim",
        "num_inference_steps": "9",
        "eta": "0.5",
        "seed": "5",
        "align": "0,0,9,9",
        "face": "0",
        "best_of": "6",
        "output_format": "webp",
    }
    assert bare.model_fields_set == set()
    assert service.paths == ["/predictions/good", "/predictions/good/2.0"]
    assert service.headers[1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("said", "best_of"),
    [
        ("", 10),
        ("--num-images 3 --mode likeness", 6),
        ("--num-images 9 --resemblance 0.4", 16),
        ("--best-of 5", 5),
        ("--seed 5", 5),
        ("--mode none", 5),
        ("--mode pixel", 5),
        ("--resemblance 1", 5),
    ],
)
def test_there_are_twice_as_many_to_choose_from_where_a_choice_is_free(
    service: Any, photo: Path, tmp_path: Path, said: str, best_of: int
) -> None:
    where = ("--model", "good", "--url", service.url, "--out", tmp_path / "out")
    run("--image", photo, *where, *said.split())
    assert service.requests[0].best_of == best_of


def test_in_a_pipe_only_warnings_are_said(service: Any, photo: Path, tmp_path: Path) -> None:
    done = run("--image", photo, "--model", "good", "--url", service.url, "--out", tmp_path / "out")
    assert done.stderr == "warning: The light is poor.\n"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--num-images", "99"], "1..16"),
        (["--num-images", "many"], "--num-images"),
        (["--mode", "likenes"], "likeness"),
        (["--resemblance", "nan"], "0..1"),
        (["--resemblance", "0.5", "--mode", "pixel"], "resemblance"),
        (["--align", "left"], "left,top,right,bottom"),
        (["--image", "missing.jpg"], "missing.jpg"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_wrong_usage_is_2_and_asks_for_nothing(
    service: Any, photo: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    done = run("--image", photo, "--model", "good", "--url", service.url, "--out", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert word in done.stderr
    assert service.paths == []
    assert not (tmp_path / "out").exists()


def test_a_guided_mode_without_a_selfie_is_wrong_usage(service: Any, tmp_path: Path) -> None:
    done = run("--mode", "likeness", "--url", service.url, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "needs a selfie" in done.stderr


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("refusing", "ddpm generate: That is no picture.\n"),
        ("unknown", "ddpm generate: Model not found: unknown\n"),
        ("failing", "ddpm generate: Too big.\n"),
    ],
)
def test_a_failure_is_1_and_one_line(service: Any, photo: Path, tmp_path: Path, model: str, line: str) -> None:
    done = run("--image", photo, "--model", model, "--url", service.url, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", line)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_a_failure(service: Any, photo: Path) -> None:
    done = run("--image", photo, "--model", "good", "--url", service.url, "--out", photo / "out")
    assert done.exit_code == 1
    assert done.stderr.startswith("ddpm generate: ")
    assert done.stderr.count("\n") == 1
    assert service.paths == []


def test_help_has_an_example() -> None:
    done = run("--help")
    assert done.exit_code == 0
    assert "Example: ddpm generate --image me.jpg" in done.stdout


# a shell that runs the tests in the background has SIGINT ignored, and so would have the command
MAIN = """
import signal, typer
from ddpm_service.cli.generate import generate
signal.signal(signal.SIGINT, signal.default_int_handler)
typer.run(generate)
"""


def test_ctrl_c_closes_the_stream_and_leaves_no_file(service: Any, photo: Path, tmp_path: Path) -> None:
    words = ["--image", photo, "--model", "endless", "--url", service.url, "--out", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"warning: The light is poor.\n"  # it is in the middle of the stream
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in rest
    assert service.left.wait(30)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "shown"), [("waiting", b"waiting, position 3"), ("endless", b"making faces, seed 7")]
)
def test_on_a_terminal_the_queue_and_the_progress_are_shown(
    service: Any, photo: Path, tmp_path: Path, model: str, shown: bytes
) -> None:
    words = ["--image", photo, "--model", model, "--url", service.url, "--out", tmp_path / "out"]
    screen, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "20"}
    process = subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=terminal, env=environment)
    os.close(terminal)
    seen = io.BytesIO()
    while shown not in seen.getvalue():
        seen.write(os.read(screen, 4096))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    os.close(screen)
