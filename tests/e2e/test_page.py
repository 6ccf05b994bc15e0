"""The page as it is served by a real `ddpm serve`, in a real browser. The toy's calls take 30 ms."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from ddpm_service.archive import pack
from ddpm_service.torchserve.desired import Desired, save
from ddpm_service.torchserve.server import Ports, read_properties

pytestmark = pytest.mark.torchserve

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-the-page"
PATIENCE = 60_000  # ms; TorchServe has to start


class House:
    """A `ddpm serve` that comes, goes and comes back at one address."""

    def __init__(self, folder: Path, archive: Path) -> None:
        front = Ports.free()
        self.url = f"http://127.0.0.1:{front.inference}/"
        properties = read_properties(ROOT / "config.properties") | {"model_store": str(folder)}
        for key in ("metrics_config", "vmargs"):
            properties[key] = properties[key].replace("handlers/", f"{ROOT}/handlers/")
        config, models, tokens = folder / "config.properties", folder / "models.yaml", folder / "tokens"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        save(Desired.model_validate({"models": {"toy": {"default": "1.0", "versions": {"1.0": archive.name}}}}), models)
        tokens.write_text(TOKEN + "\n")
        self._command = [sys.executable, "-m", "ddpm_service", "serve"]
        self._command += ["--config", str(config), "--models", str(models), "--tokens", str(tokens)]
        self._command += ["--port", str(front.inference), "--grpc-port", "0", "--metrics-port", "0"]
        self._log = (folder / "log").open("w")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )

    def stop(self) -> None:
        """Stop at once: a second signal waits for nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
        self._log.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, write_toy_bundle: Any) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("page")
    house = House(folder, pack(write_toy_bundle(folder / "toy", seconds=0.03), folder))
    house.start()
    yield house
    house.close()


@pytest.fixture
def photo(tmp_path: Path, selfie: bytes) -> Path:
    file = tmp_path / "selfie.jpg"
    file.write_bytes(selfie)
    return file


PHONE = (390, 844)


@pytest.fixture(params=[(1280, 900), PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, house: House) -> Iterator[Page]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=width < 500)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda line: wrong.append(line.text) if "Security Policy" in line.text else None)
    opened.on("request", lambda sent: wrong.append(sent.url) if not sent.url.startswith(house.url) else None)
    _until_it_listens(house)
    opened.goto(house.url + f"#token={TOKEN}")
    expect(opened.locator("#state")).to_have_text("Ready", timeout=PATIENCE)
    yield opened
    context.close()
    assert [each for each in wrong if not each.startswith("blob:" + house.url)] == []


def _until_it_listens(house: House) -> None:
    for _ in range(600):
        try:
            requests.get(house.url + "healthz", timeout=5)
            return
        except requests.ConnectionError:
            assert house._process is not None
            with pytest.raises(subprocess.TimeoutExpired):
                house._process.wait(0.1)
    pytest.fail("the service does not listen")


def upload(page: Page, photo: Path) -> None:
    page.set_input_files("#file", photo)
    expect(page.locator(".crop")).to_be_visible()


def phase(page: Page, name: str, timeout: float = 30_000) -> None:
    expect(page.locator("#stage")).to_have_attribute("data-phase", name, timeout=timeout)


def with_steps(page: Page, steps: int) -> None:
    if not page.locator("#more").get_attribute("open"):
        page.locator("#more").evaluate("element => { element.open = true }")
    page.get_by_label("Steps", exact=True).fill(str(steps))


def test_from_the_photo_to_five_faces_in_a_file(page: Page, photo: Path) -> None:
    upload(page, photo)
    with_steps(page, 40)  # so many that the forming is seen
    page.get_by_role("button", name="Make 5 faces").click()
    expect(page.locator('.tile[data-state="forming"]')).to_have_count(5)
    phase(page, "done")
    expect(page.locator('.tile[data-state="done"]')).to_have_count(5)
    expect(page.locator(".you")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 15  # as seen, as they came, and cards
        assert archive.read(archive.namelist()[0]).startswith(b"\x89PNG")


def test_cancel_stops_the_service(page: Page) -> None:
    with_steps(page, 300)
    page.locator("#generate").click()
    expect(page.locator(".progress-words")).to_contain_text(re.compile("Step .* left"))
    page.get_by_role("button", name="Cancel").click()
    phase(page, "cancelled")
    with_steps(page, 3)
    page.locator("#generate").click()
    phase(page, "done")


def test_a_picture_that_is_cut_off_gives_the_drop_zone_back(page: Page, photo: Path) -> None:
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    page.set_input_files("#file", photo)
    alert = page.get_by_role("alert").filter(visible=True)
    expect(alert).to_contain_text("The picture is damaged or cut off")
    expect(alert).not_to_contain_text("JPEG")
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
    expect(page.locator("#generate")).to_have_text("Imagine 5 faces")


def test_errors_are_told_and_dismissed(page: Page, tmp_path: Path) -> None:
    alert = page.get_by_role("alert").filter(visible=True)
    notes = tmp_path / "notes.png"
    notes.write_text("no picture at all")
    page.set_input_files("#file", notes)
    expect(alert).to_contain_text("not a picture")
    page.get_by_role("button", name="Dismiss").click()
    expect(alert).to_have_count(0)
    with_steps(page, 16)  # the toy fails at this number
    page.locator("#generate").click()
    phase(page, "failed")
    expect(alert).to_be_visible()


@pytest.mark.parametrize("page", [PHONE], indirect=True, ids=["phone"])
def test_offline_and_back(page: Page, house: House, photo: Path) -> None:
    upload(page, photo)
    with_steps(page, 150)
    page.locator("#generate").click()
    expect(page.locator('.tile[data-state="forming"]')).to_have_count(5)
    seed = re.search(r"seed \d+", page.locator(".meta").first.inner_text())
    assert seed
    house.stop()
    expect(page.locator("#state")).to_have_text("Unreachable")
    expect(page.get_by_role("alert").filter(visible=True)).to_be_visible()
    house.start()
    phase(page, "done", 2 * PATIENCE)
    expect(page.locator('.tile[data-state="done"]')).to_have_count(5)
    expect(page.locator(".meta").first).to_contain_text(seed[0])
