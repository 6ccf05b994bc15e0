"""The whole of `ddpm serve` before a real TorchServe: what its clients notice while everything behind it changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ddpm_api import parse_event
from ddpm_service.torchserve.desired import Desired, save
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports, read_properties

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.torchserve

# Speaks the contract without a network: each call of it is a step of every open request, and lasts 20 ms.
HANDLER = """
import json, os, time
if os.path.exists(BROKEN):
    raise ValueError("broken weights")
steps = {}

def handle(data, ctx):
    if data is None:
        return None
    time.sleep(0.02)
    answers, criteria = [], []
    live = set(ctx.request_ids.values())
    for key in set(steps) - live:
        del steps[key]
    for row, key in ctx.request_ids.items():
        ctx.set_response_content_type(row, "application/x-ndjson")
        first = key not in steps
        if first:
            body = data[row].get("body")
            wanted = body.get("num_inference_steps", 1) if isinstance(body, dict) else 1
            steps[key] = [0, wanted]
        step = steps[key]
        step[0] += 1
        started = {"event": "started", "id": key, "model": "a", "version": VERSION, "seed": 0,
                   "parameters": {"under_way": len(ctx.request_ids)}}
        progress = {"event": "progress", "step": step[0], "total_steps": step[1]}
        events = [started] * first + [progress]
        done = step[0] >= step[1]
        if done:
            picture = {"index": 0, "seed": 0, "width": 1, "height": 1, "content_type": "image/png", "b64_json": "AA=="}
            timing = {"queue_seconds": 0.0, "seconds": 0.0, "calls": step[1]}
            events += [{"event": "image", **picture}, {"event": "end", "timing": timing}]
            del steps[key]
        accept = {k.lower(): v for k, v in ctx.get_all_request_header(row).items()}.get("accept")
        if accept == "application/json":
            ctx.set_response_content_type(row, "application/json")
            answers.append('{"images": [1]}')
        else:
            answers.append("".join(json.dumps(event) + "\\\\n" for event in events))
        criteria.append((lambda end: lambda _: end)(None if first and done else done))
    ctx.stopping_criteria = criteria
    return answers
""".replace("\\\\n", "\\n")


class House:
    """A running `ddpm serve` with toy versions of one model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.models = folder, folder / "models.yaml"
        self.broken = folder / "broken"
        self.store = folder / "store"
        self.store.mkdir()
        self.ports = Ports.free()
        front = Ports.free()
        self.url = f"http://127.0.0.1:{front.inference}"
        self.metrics_url = f"http://127.0.0.1:{front.metrics}"
        self.management = Management(f"http://127.0.0.1:{self.ports.management}")
        self.make("1.0")
        self.want("1.0", "1.0")
        properties = read_properties(ROOT / "config.properties") | self.ports.settings()
        for key in ("metrics_config", "vmargs"):
            properties[key] = properties[key].replace("handlers/", f"{ROOT}/handlers/")
        properties["model_store"] = str(self.store)
        config = folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        command = [sys.executable, "-c", "from ddpm_service.cli import main; main()", "serve"]
        command += ["--config", str(config), "--models", str(self.models)]
        command += ["--port", str(front.inference), "--grpc-port", "0", "--metrics-port", str(front.metrics)]
        self.output = (folder / "output").open("w")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output)

    def make(self, version: str, handler: str = HANDLER) -> None:
        model = {"modelName": "a", "modelVersion": version, "handler": "toy.py", "configFile": "model-config.yaml"}
        settings = (ROOT / "handlers" / "model-config.yaml").read_text()
        settings = settings.replace("maxRetryTimeoutInSec: 60", "maxRetryTimeoutInSec: 5")
        bundle = {"name": "a", "version": version, "image_size": 1, "channels": 3}
        with zipfile.ZipFile(self.store / f"a_{version}.mar", "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
            archive.writestr("toy.py", f"VERSION = {version!r}\nBROKEN = {str(self.broken)!r}\n{handler}")
            archive.writestr("model-config.yaml", settings)
            archive.writestr("bundle/bundle.json", json.dumps(bundle))

    def want(self, default: str, *versions: str) -> None:
        model = {"default": default, "versions": {version: f"a_{version}.mar" for version in versions}}
        save(Desired.model_validate({"models": {"a": model}}), self.models)

    def get(self, path: str) -> tuple[int, Any]:
        answer = requests.get(self.url + path, timeout=10)
        return answer.status_code, answer.json()

    def wait(self, path: str, code: int = 200, /, **fields: Any) -> None:
        """Wait until a document has this status and these fields."""
        seen: Any = None
        for _ in range(1500):
            try:
                seen = self.get(path)
            except requests.ConnectionError as error:
                seen = type(error).__name__
            if seen[0] == code and fields.items() <= seen[1].items():
                return
            assert self.process.poll() is None, self.said
            time.sleep(0.05)
        pytest.fail(f"{path} stays {seen}: {self.said[-2000:]}")

    def generate(self, version: str | None = None, **body: Any) -> requests.Response:
        return requests.post(self.url + "/predictions/a" + (f"/{version}" if version else ""), json=body, timeout=30)

    def stream(self, steps: int) -> requests.Response:
        answer = requests.post(
            self.url + "/predictions/a",
            json={"num_inference_steps": steps},
            headers={"Accept": "application/x-ndjson"},
            stream=True,
            timeout=60,
        )
        assert answer.status_code == 200
        return answer

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def said(self) -> str:
        return (self.folder / "output").read_text()


@pytest.fixture
def house(tmp_path):
    running = House(tmp_path)
    try:
        running.wait("/readyz")
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(30)
        running.output.close()


def events(answer: requests.Response) -> list[Any]:
    return [parse_event(line) for line in answer.iter_lines() if line.strip()]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in psutil.wait_procs(processes, timeout=30)[1] if process.is_running()]


def kill_worker(house: House) -> None:
    os.kill(house.management.describe("a")[0].workers[0].pid, signal.SIGKILL)


def kill_torchserve(house: House) -> None:
    next(process for process in house.descendants() if process.name() == "java").kill()


def test_it_answers_as_torchserve_does_at_the_same_path(house):
    assert house.generate().json()["images"][0]["b64_json"] == "AA=="
    assert house.generate("1.0", num_inference_steps=5).json()["timing"]["calls"] == 5
    assert [event.event for event in events(house.stream(3))] == ["started", *["progress"] * 3, "image", "end"]
    text = requests.get(house.metrics_url + "/metrics", timeout=10).text
    assert "ddpm_gateway_ready 1.0" in text
    assert "ts_inference_requests_total" in text  # TorchServe's own beside ours


def test_a_client_that_leaves_frees_its_place(house):
    answers = [house.stream(50_000) for _ in range(3)]
    for answer in answers:
        assert parse_event(next(answer.iter_lines())).event == "started"
        answer.close()
    for _ in range(5):  # each takes one step, and a place is free after two
        under_way = house.generate().json()["parameters"]["under_way"]
    assert under_way == 1


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
    answer = house.stream(5000)
    lines = answer.iter_lines()
    assert parse_event(next(lines)).event == "started"
    kill(house)
    rest = [parse_event(line) for line in lines if line.strip()]
    assert (rest[-1].event, rest[-1].error.code) == ("error", "unavailable")
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_what_runs_refuses_the_rest_and_leaves_nothing(house, number):
    family = house.descendants()
    answer = house.stream(100)
    lines = answer.iter_lines()
    assert parse_event(next(lines)).event == "started"
    house.process.send_signal(number)
    house.wait("/readyz", 503, status="stopping")
    refused = house.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert parse_event(list(lines)[-1]).event == "end"
    assert house.process.wait(60) == 0
    assert alive(family) == []


def test_told_twice_it_cuts_what_runs(house):
    family = house.descendants()
    answer = house.stream(50_000)
    lines = answer.iter_lines()
    assert parse_event(next(lines)).event == "started"
    house.process.send_signal(signal.SIGTERM)
    house.wait("/readyz", 503, status="stopping")
    house.process.send_signal(signal.SIGTERM)
    assert parse_event(list(lines)[-1]).event == "error"
    assert house.process.wait(60) == 0
    assert alive(family) == []


def test_what_has_failed_for_good_ends_the_process(house):
    house.broken.touch()
    kill_worker(house)
    assert house.process.wait(120) == 1
    assert "its worker has failed for good: ValueError: broken weights" in house.said
