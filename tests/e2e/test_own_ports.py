"""What somebody does at TorchServe's own ports while requests run, and workers that live and answer nobody."""

from __future__ import annotations

import signal
import time

import pytest
import requests

from ddpm_api import parse_event
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.sockets import Sockets
from tests.e2e.house import House, events

pytestmark = pytest.mark.torchserve


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with House(tmp_path_factory.mktemp("house")).running() as house:
        yield house


def manage(house: House, method: str, path: str, **query: str | int) -> requests.Response:
    return Api(Sockets.of(house.config).management, "management").request(method, path, params=query, timeout=60)


@pytest.mark.parametrize("synchronous", ["true", "false"])
def test_a_second_worker_goes_at_once_and_nobody_notices_it(house, synchronous):
    running = house.stream(200)
    scaled = manage(house, "PUT", "/models/a/1.0", min_worker=2, max_worker=2, synchronous=synchronous)
    assert scaled.ok
    assert house.generate(num_inference_steps=2).ok
    assert events(running)[-1].event == "end"
    assert house.get("/readyz")[0] == 200
    deadline = time.monotonic() + 60
    while len(house.management.describe("a")[0].workers) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert house.generate(num_inference_steps=2).ok
    assert "a 1.0: it has 2 workers instead of 1" in house.said


@pytest.mark.parametrize(
    ("method", "query", "how"),
    [
        ("PUT", {"min_worker": 0, "max_worker": 0, "synchronous": "true"}, "it has 0 workers instead of 1"),
        ("DELETE", {}, "it is not registered any more"),
    ],
    ids=["scale to 0", "unregister"],
)
def test_a_version_that_is_taken_away_comes_back(house, method, query, how):
    running = house.stream(2000)
    assert manage(house, method, "/models/a/1.0", **query).ok
    house.wait("/readyz", 503)
    refused = house.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert events(running)[-1].event == "error"
    house.wait("/readyz")
    assert house.generate().ok
    assert f"a 1.0: {how}" in house.said


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/models", {"limit": 1}),
        ("GET", "/models/a/all", {}),
        ("GET", "/models/a/1.0", {"customized": "true"}),
        ("PUT", "/models/a/1.0", {"min_worker": 1, "max_worker": 1, "synchronous": "true"}),
        ("PUT", "/models/a/1.0/set-default", {}),
        ("PUT", "/models/a/9.9/set-default", {}),
        ("POST", "/models", {"url": "a_1.0.mar", "initial_workers": 1, "synchronous": "true"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_any_other_call_disturbs_nobody(house, method, path, query):
    running = house.stream(50)
    manage(house, method, path, **query)
    assert house.generate(num_inference_steps=2).ok
    assert events(running)[-1].event == "end"
    assert house.generate(num_inference_steps=2).ok
    assert house.get("/readyz")[0] == 200


def test_a_worker_that_stands_still_is_told_refuses_and_is_replaced(house):
    time.sleep(5)  # nobody asks, so it asks itself, and knows how long a call lasts
    lines = house.stream(5000).iter_lines()
    assert parse_event(next(lines)).event == "started"
    worker = house.worker
    worker.send_signal(signal.SIGSTOP)
    house.wait("/readyz", 503, waiting_for={"a": "1.0 is silent"})
    assert house.generate().json()["error"]["code"] == "unavailable"
    last = parse_event([line for line in lines if line.strip()][-1])
    assert (last.event, last.error.code) == ("error", "unavailable")
    house.wait("/readyz")
    assert house.generate().ok
    assert not worker.is_running()
