"""A proxy that brings TLS in front of the service, by the line that README gives, run with a real Caddy.

Without TLS here: for a certificate Caddy would change what this machine trusts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ddpm_service.torchserve.server import free_port
from tests.e2e.house import ROOT, House, events

pytestmark = pytest.mark.torchserve

NAME = "faces.example.com"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house"), environment={"DDPM_HOSTS": NAME}).running() as house:
        yield house


@pytest.fixture(scope="module")
def proxy(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """README's command, at other ports; its own."""
    (line,) = re.findall(r"`(caddy reverse-proxy [^`]+)`", (ROOT / "README.md").read_text())
    assert f"DDPM_HOSTS={NAME}" in (ROOT / "README.md").read_text()
    port = free_port()
    command = [word.replace(NAME, f":{port}") for word in shlex.split(line)]  # without a name it needs no certificate
    command = [word.replace("127.0.0.1:8000", house.url.removeprefix("http://")) for word in command]
    assert command != shlex.split(line)
    caddy = shutil.which("caddy")
    assert caddy, "a proxy in front is tried with Debian's caddy: apt-get install caddy"
    folder = tmp_path_factory.mktemp("caddy")
    environment = os.environ | dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    environment |= {"CADDY_ADMIN": f"127.0.0.1:{free_port()}"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [caddy, *command[1:]], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _wait_until_listening(port, process, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(log.read_text())


def ask(proxy: int, method: str, path: str, *, headers: dict[str, str], **more: Any) -> requests.Response:
    """As a browser asks that found the proxy by its name."""
    own = {"Host": f"{NAME}:{proxy}"} | headers
    return requests.request(method, f"http://127.0.0.1:{proxy}{path}", headers=own, timeout=60, **more)


def test_the_page_asks_by_the_name_in_front_and_gets_faces(proxy: int) -> None:
    page = ask(proxy, "GET", "/", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
    own = {"Origin": f"https://{NAME}:{proxy}", "Sec-Fetch-Site": "same-origin", "Accept": "application/x-ndjson"}
    with ask(proxy, "POST", "/predictions/a", json={}, headers=own, stream=True) as answer:
        assert answer.status_code == 200
        assert events(answer)[-1].event == "end"
    assert ask(proxy, "POST", "/predictions/a", json={}, headers={"Origin": "https://evil.example"}).status_code == 403
