"""A web page of another origin, in a real browser on the machine that serves: whatever it sends, it makes nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.house import House

pytestmark = pytest.mark.torchserve

EVIL = "evil.example"  # leads to this machine (tests/browser.py)
PATHS = [
    "/predictions/a",
    "/predictions/a/1.0",
    "/v1/images/generations",
    "/v1/images/edits",
    "/generate",
    "/models?url=a_1.0.mar&model_name=b",
    "/models/a",
    "/models/a/1.0/set-default",
    "/models/a?min_worker=0&max_worker=0",
]
# All that a script can send: simple requests, whose answers it may not read, and those that ask for leave first.
SENDS = """async ([base, paths]) => {
  const form = new FormData(), told = [];
  form.append("num_images", "1");
  const bodies = [form, "{}", new Blob(["{}"], {type: "application/json"}), null];
  for (const path of paths) for (const method of ["POST", "PUT", "DELETE", "PATCH"])
    for (const body of bodies) for (const mode of ["cors", "no-cors"]) {
      const stop = AbortSignal.timeout(20000);
      try { const answer = await fetch(base + path, {method, body, mode, signal: stop}); told.push(answer.status); }
      catch (problem) { told.push(problem.name); }
    }
  return told;
}"""


class Recorder(http.server.ThreadingHTTPServer):
    """A page's own server, and somebody who does whatever a browser asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Records)
        self.came: list[tuple[str, str, str | None]] = []


class _Records(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.came.append((self.command, self.path, self.headers["Origin"]))
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("house")).running() as house:
        yield house


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Recorder]:
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def page(browser: Browser, elsewhere: Recorder) -> Iterator[Page]:
    """A page of the other origin."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{EVIL}:{elsewhere.server_port}/")
    yield page
    context.close()


def asked(house: House) -> list[dict[str, Any]]:
    """The requests that the front door has answered."""
    lines = [json.loads(line) for line in house.said.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] in ("request", "generated")]


def ports(house: House) -> set[int]:
    """Every TCP port on which the service or TorchServe listens."""
    processes = [psutil.Process(house.process.pid), *house.descendants()]
    return {
        each.laddr.port
        for process in processes
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }


def test_a_browser_does_send_such_requests(page: Page) -> None:
    """So it is the service that refuses them."""
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.evaluate(SENDS, [f"http://127.0.0.1:{server.server_port}", PATHS[:1]])
        server.shutdown()
    assert ("POST", PATHS[0], page.evaluate("origin")) in server.came


def test_no_port_makes_or_changes_anything(house: House, page: Page) -> None:
    before, models = len(asked(house)), house.management.models()
    front = int(house.url.rpartition(":")[2])
    found = ports(house)
    assert front in found
    assert len(found) >= 4  # the front door's three, and TorchServe's gRPC
    for port in found:
        told = page.evaluate(SENDS, [f"http://127.0.0.1:{port}", PATHS if port == front else PATHS[:1]])
        assert set(told) <= {0, "TypeError"}, port  # nothing can be read
    answered = asked(house)[before:]
    assert {each["message"] for each in answered} == {"request"}  # no face was made
    assert {each["status"] for each in answered if each["method"] not in ("OPTIONS", "gRPC")} <= {403}
    assert house.management.models() == models
    assert [each.version for each in house.management.describe("a")] == ["1.0"]
    assert house.get("/readyz")[0] == 200


def test_a_page_that_was_rebound_to_this_machine_makes_nothing(house: House, page: Page) -> None:
    front = house.url.rpartition(":")[2]
    # Where a page of this name and port would be after its name was made to lead here; health is told under any name.
    page.goto(f"http://{EVIL}:{front}/healthz")
    told = page.evaluate(SENDS, [page.evaluate("origin"), PATHS])  # its own, so that it may send and read anything
    assert set(told) == {421, "TypeError"}  # `no-cors` knows but one of the methods
    assert page.evaluate("fetch('/v1/models').then(answer => answer.status)") == 421


def test_a_page_of_its_own_makes_faces(house: House, page: Page) -> None:
    page.goto(house.url)
    told = page.evaluate("fetch('/predictions/a', {method: 'POST', body: '{}'}).then(answer => answer.status)")
    assert told != 403
