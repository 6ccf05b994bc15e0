"""Every command of the README is run as it stands, on the default ports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
import skimage.data
from PIL import Image

from ddpm_core.pixels import Pixels

pytestmark = pytest.mark.torchserve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What would train for days, draw a sheet of faces, or run for ever, is cut short or tested by the fixtures below.
CUT_SHORT = {
    "ddpm train": " --max-steps 1 --set steps=2 --set batch=4 --set compile=false",
    "ddpm export": " --samples 2",
}
SERVERS = ("make run", "torchserve --start")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def shortened(command: str) -> str:
    return command + next((more for name, more in CUT_SHORT.items() if name in command), "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as a newcomer has it, where what the commands write does no harm."""
    folder = tmp_path_factory.mktemp("newcomer")
    copied = ("models.yaml", "config.properties")
    for path in ROOT.iterdir():
        if path.name not in ("runs", "faces", "mine", "me.jpg", "photos", "models", "model_store", *copied):
            (folder / path.name).symlink_to(path)
    (folder / "models").mkdir()
    (folder / "models" / "faces-64").symlink_to(ROOT / "models" / "faces-64")
    (folder / "model_store").mkdir()
    for name in copied:
        shutil.copy(ROOT / name, folder)
    Image.fromarray(skimage.data.astronaut()).save(folder / "me.jpg")
    (folder / "photos").mkdir()
    for i, patch in enumerate(patches(skimage.data.astronaut())):
        Image.fromarray(patch).save(folder / "photos" / f"{i:03}.png")
    return folder


def patches(picture: Pixels) -> list[Pixels]:
    return [picture[y : y + 64, x : x + 64] for y in range(0, 448, 64) for x in range(0, 448, 64)]


def check_free(port: int) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), f"port {port} is taken: stop the service that is running here"


def wait_until(url: str, process: subprocess.Popen[bytes], said: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, said.read_text()
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    raise AssertionError(said.read_text())


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """`make run`, ready; at the end Ctrl-C must leave nothing of it."""
    check_free(8000)
    said = tmp_path_factory.mktemp("run") / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(
            ["make", "run"], cwd=folder, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        wait_until("http://127.0.0.1:8000/readyz", process, said)
        everything = psutil.Process(process.pid).children(recursive=True)
        yield process
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(60)
        gone, alive = psutil.wait_procs(everything, 10)
        assert not alive, alive
        assert len(gone) >= 4  # front door, guard, TorchServe, worker
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_readme_has_commands() -> None:
    assert len(commands()) > 12
    assert all(any(name in command for command in commands()) for name in (*CUT_SHORT, *SERVERS))


def test_torchserve_alone_serves_the_model_store(folder: Path, tmp_path: Path) -> None:
    # Before `running`, which has the same ports.
    run(".venv/bin/ddpm pack models/faces-64/2.1", folder)
    (block,) = [block for block in blocks("sh") if SERVERS[1] in block]
    check_free(8080)
    said = tmp_path / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-euc", block],
            cwd=folder,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        url = "http://127.0.0.1:8080"
        wait_until(f"{url}/ping", process, said)
        picture = {"image": (folder / "me.jpg").read_bytes()}
        few = {"num_images": 1, "num_inference_steps": 4}
        deadline = time.monotonic() + 120
        while True:
            answer = requests.post(
                f"{url}/predictions/faces-64", data=few, files=picture, headers={"Accept": "image/png"}, timeout=120
            )
            if answer.status_code == 200 or time.monotonic() > deadline:
                break
            time.sleep(1)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "image/png"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("command", [c for c in commands() if not any(name in c for name in SERVERS)])
def test_a_command_of_the_readme_works(command: str, folder: Path) -> None:
    out = run(shortened(command), folder)
    match = re.search(r"--output (\S+)", command)
    if match:
        with Image.open(folder / match[1]) as picture:
            assert picture.width >= 64
    elif command.startswith("curl"):
        assert '"error"' not in out
        assert "b64_json" in out
    elif match := re.search(r"ddpm generate .*--out (\S+)", command):
        assert (folder / match[1] / "sheet.png").is_file()


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_readme_works(code: str, folder: Path) -> None:
    script = folder / "snippet.py"
    script.write_text(code)
    run(".venv/bin/python -W error snippet.py", folder)
