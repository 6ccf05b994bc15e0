"""The whole of `ddpm serve` before a real TorchServe: what its clients notice while everything behind it changes."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
import requests

from ddpm_api import parse_event
from tests.e2e.house import House, events

pytestmark = pytest.mark.torchserve


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[House]:
    # No heartbeat comes before 5 s, so one that was sent shows that a stream was silent for so long.
    folder = tmp_path_factory.mktemp("shared")
    with House(folder, environment={"DDPM_HEARTBEAT_SECONDS": "5"}).running() as house:
        yield house


@pytest.fixture
def house(shared: House) -> House:
    """A service of version 1.0, whatever the test before it has made of it."""
    shared.want("1.0", "1.0")
    shared.wait("/v1/models/a", default_version="1.0")
    for version in ("2.0", "3.0"):
        shared.wait(f"/v1/models/a/versions/{version}", 404)
    shared.wait("/readyz")
    return shared


@pytest.fixture
def ending(tmp_path) -> Iterator[House]:
    """A service that the test ends."""
    with House(tmp_path).running() as house:
        yield house


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in psutil.wait_procs(processes, timeout=30)[1] if process.is_running()]


def kill_worker(house: House) -> None:
    house.worker.kill()


def kill_torchserve(house: House) -> None:
    next(process for process in house.descendants() if process.name() == "java").kill()


def test_it_answers_as_torchserve_does_at_the_same_path(house):
    assert house.generate().json()["images"][0]["b64_json"] == "AA=="
    assert house.generate("1.0", num_inference_steps=5).json()["timing"]["calls"] == 5
    assert [event.event for event in events(house.stream(3))] == ["started", *["progress"] * 3, "image", "end"]
    text = requests.get(house.metrics_url + "/metrics", timeout=10).text
    assert "ddpm_gateway_ready 1.0" in text
    assert "ts_inference_requests_total" in text  # TorchServe's own beside ours


def test_more_clients_than_places_are_refused_and_every_other_one_is_answered(house):
    seen: list[requests.Response] = []
    start = threading.Barrier(200)

    def ask() -> None:
        start.wait(60)
        seen.append(house.generate(num_inference_steps=50))

    clients = [threading.Thread(target=ask) for _ in range(200)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        assert house.get("/readyz")[0] == 200
        time.sleep(0.1)
    counts = Counter(answer.status_code for answer in seen)
    assert counts.total() == 200
    assert counts.keys() <= {200, 503}
    assert counts[200] >= 100
    refused = [answer for answer in seen if answer.status_code == 503]
    assert all(answer.headers["Retry-After"] and answer.json()["error"]["code"] == "busy" for answer in refused)


@pytest.mark.parametrize("kill", [kill_worker, kill_torchserve])
def test_what_dies_ends_its_requests_by_an_error_and_comes_back(house, kill):
    streams = [house.stream(5000).iter_lines() for _ in range(3)]
    for lines in streams:
        assert parse_event(next(lines)).event == "started"
    kill(house)
    for lines in streams:
        rest = list(lines)
        assert b"" not in rest  # no heartbeat: it was never silent for 5 s
        last = parse_event(rest[-1])
        assert (last.event, last.error.code) == ("error", "unavailable")
    house.wait("/readyz", 503)
    assert house.generate().status_code == 503
    house.wait("/readyz")
    assert house.generate().status_code == 200


def test_versions_come_change_and_go_under_traffic_without_a_failed_request(house):
    seen: Counter[tuple[int, str]] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = house.generate(num_inference_steps=20)
            seen[answer.status_code, answer.json().get("version", answer.text)] += 1

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        house.make("2.0")
        house.want("2.0", "1.0", "2.0")
        house.wait("/v1/models/a", default_version="2.0")
        house.want("2.0", "2.0")
        house.wait("/v1/models/a/versions/1.0", 404)

        house.make("3.0", "raise ValueError('broken weights')")
        house.want("3.0", "2.0", "3.0")
        house.wait("/v1/models/a/versions/3.0/ready", 503, state="failed")
        assert "broken weights" in house.get("/v1/models/a/versions/3.0/ready")[1]["reason"]
        assert house.get("/readyz")[0] == 200
        assert house.generate("3.0").status_code == 503
        before = seen[200, "2.0"]
        while seen[200, "2.0"] < before + 4:
            assert house.get("/readyz")[0] == 200
            time.sleep(0.05)
    finally:
        stop.set()
        for client in clients:
            client.join(60)
    assert seen.keys() == {(200, "1.0"), (200, "2.0")}


@pytest.mark.parametrize(
    ("words", "leaves", "then"),
    [
        (["unregister", "a", "1.0"], "removed", None),
        (["scale", "a", "1.0", "0"], "unloaded", "unloaded"),
    ],
    ids=["unregister", "scale to 0"],
)
def test_a_version_that_is_told_to_go_first_ends_its_streams(house, words, leaves, then):
    house.make("2.0")
    house.want("2.0", "1.0", "2.0")
    house.wait("/v1/models/a", default_version="2.0")
    lines = house.stream(400, "1.0").iter_lines()
    assert parse_event(next(lines)).event == "started"
    with house.ddpm_models(*words) as command:
        house.wait("/v1/models/a/versions/1.0", state="leaving")
        late = house.generate("1.0")
        assert (late.status_code, late.json()["error"]["code"]) == (503, "unavailable")
        assert command.poll() is None
        rest = [parse_event(line) for line in lines if line.strip()]
        assert command.wait(60) == 0
        assert f"a 1.0: {leaves}" in command.stderr.read().splitlines()
    assert [event.event for event in rest[-2:]] == ["image", "end"]
    served = {each.version: each.ready for each in house.management.describe("a")}
    assert served == {"2.0": True} if then is None else {"1.0": False, "2.0": True}
    if then is None:
        house.wait("/v1/models/a/versions/1.0", 404)
    else:
        house.wait("/v1/models/a/versions/1.0", state=then)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_what_runs_refuses_the_rest_and_leaves_nothing(ending, number):
    family = ending.descendants()
    answer = ending.stream(100)
    lines = answer.iter_lines()
    assert parse_event(next(lines)).event == "started"
    # As when `make` passes on what its whole process group has got.
    ending.process.send_signal(number)
    ending.process.send_signal(number)
    ending.wait("/readyz", 503, status="stopping")
    ending.process.send_signal(number)
    refused = ending.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert parse_event(list(lines)[-1]).event == "end"
    assert ending.process.wait(60) == 0
    assert alive(family) == []


def test_told_twice_it_cuts_what_runs(ending):
    family = ending.descendants()
    answer = ending.stream(50_000)
    lines = answer.iter_lines()
    assert parse_event(next(lines)).event == "started"
    ending.process.send_signal(signal.SIGTERM)
    ending.wait("/readyz", 503, status="stopping")
    time.sleep(1)
    ending.process.send_signal(signal.SIGTERM)
    assert parse_event(list(lines)[-1]).event == "error"
    assert ending.process.wait(60) == 0
    assert alive(family) == []


def test_what_has_failed_for_good_ends_the_process(tmp_path):
    with House(tmp_path, patience=10).running() as house:
        house.broken.touch()
        kill_worker(house)
        assert house.process.wait(120) == 1
        assert "its worker has failed for good: ValueError: broken weights" in house.said
