"""`ddpm serve` over gRPC, asked by a client that is made of TorchServe's own definition. The toy's calls take 30 ms."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ddpm_api import Event, parse_event
from ddpm_service.archive import pack
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.desired import Desired, save
from ddpm_service.torchserve.server import read_properties
from ddpm_service.torchserve.sockets import Sockets

pytestmark = pytest.mark.torchserve

ROOT = Path(__file__).parents[2]
FOR_EVER = b"1000"  # steps: half a minute
SERVING = health_pb2.HealthCheckResponse.SERVING


class Service:
    """A running `ddpm serve` and a client of its gRPC port."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, sockets: Sockets) -> None:
        self.process, self._log, self._sockets = process, log, sockets
        wait_until(lambda: self._port() is not None)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self._port()}")
        sys.path.insert(0, str(Path(__file__).parent))
        self._messages, services = grpc.protos_and_services("inference.proto")
        sys.path.pop(0)
        self.client = services.InferenceAPIsServiceStub(self.channel)

    def _port(self) -> str | None:
        found = re.search(r"listening at grpc://[\d.]+:(\d+)", self._log.read_text())
        return found[1] if found else None

    def wait_until_serving(self) -> None:
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)
        assert SERVING in (answer.status for answer in watch)
        watch.cancel()

    def ask(self, model: str, **fields: bytes) -> bytes:
        return self.client.Predictions(self._asked(model, fields), timeout=90).prediction

    def stream(self, model: str, **fields: bytes) -> Any:
        return self.client.StreamPredictions(self._asked(model, fields), timeout=120)

    def _asked(self, model: str, fields: dict[str, bytes]) -> Any:
        return self._messages.PredictionsRequest(model_name=model, input=fields)

    def running(self) -> float:
        """How many requests the toy's engine works on."""
        text = Api(self._sockets.metrics).request("GET", "/metrics", timeout=30).text
        values = re.findall(r'^ddpm_requests_running{[^}]*ModelName="toy"[^}]*} (\S+)$', text, re.MULTILINE)
        return sum(map(float, values))


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def next_event(call: Any) -> Event:
    return parse_event(next(call).prediction)


def wait_for(call: Any, name: str) -> None:
    while next_event(call).event != name:
        pass


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, write_toy_bundle: Any) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("serve")
    toy = pack(write_toy_bundle(folder / "toy", seconds=0.03), folder)
    properties = read_properties(ROOT / "config.properties") | {"model_store": str(folder)}
    for key in ("metrics_config", "vmargs"):
        properties[key] = properties[key].replace("handlers/", f"{ROOT}/handlers/")
    (folder / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    desired = {"models": {"toy": {"default": "1.0", "versions": {"1.0": toy.name}}}}
    save(Desired.model_validate(desired), folder / "models.yaml")
    program = "import sys, typer; from ddpm_service.cli.serve import serve; typer.run(serve)"
    command = [sys.executable, "-c", program, "--port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command += ["--config", str(folder / "config.properties"), "--models", str(folder / "models.yaml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as process:
        service = Service(process, folder / "log", Sockets.of(folder / "config.properties"))
        try:
            service.wait_until_serving()
            yield service
        finally:
            service.channel.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def test_a_selfie_is_answered_by_the_result_as_text(service, selfie):
    result = json.loads(service.ask("toy", data=selfie, num_images=b"2", num_inference_steps=b"5").decode("utf-8"))

    assert [image["index"] for image in result["images"]] == [0, 1]
    assert result["target"]["faces"]
    assert json.loads(service.client.Ping(empty_pb2.Empty()).health) == {"status": "Healthy"}


def test_a_picture_is_answered_where_it_is_accepted(service):
    assert service.ask("toy", num_inference_steps=b"3", accept=b"image/png").startswith(b"\x89PNG")


def test_progress_comes_step_by_step(service):
    call = service.stream("toy", num_inference_steps=b"40", preview_every=b"10")
    events = [parse_event(part.prediction) for part in call]

    steps = [event.step for event in events if event.event == "progress"]
    assert steps == sorted(set(steps))
    assert len(steps) >= 20  # at 30 ms a call, a tick is a step or two
    assert [event.step for event in events if event.event == "preview"] == [10, 20, 30]
    assert [event.event for event in events[-2:]] == ["image", "end"]


def test_refusals_and_late_failures_have_their_status(service):
    for model, fields, status, code in (
        ("toy", {"num_images": b"99"}, "INVALID_ARGUMENT", "out_of_range"),
        ("toy", {"data": b"no picture"}, "INVALID_ARGUMENT", "not_an_image"),
        ("nobody", {"seed": b"1"}, "NOT_FOUND", "not_found"),
        ("toy", {"num_inference_steps": b"16"}, "INTERNAL", "generation_failed"),
    ):
        for ask in (service.ask, lambda *model, **fields: list(service.stream(*model, **fields))):
            with pytest.raises(grpc.RpcError) as failed:
                ask(model, **fields)
            assert (failed.value.code().name, json.loads(failed.value.details())["error"]["code"]) == (status, code)


def test_a_cancelled_call_frees_its_place(service):
    staying, leaving = (service.stream("toy", num_inference_steps=FOR_EVER) for _ in range(2))
    wait_until(lambda: service.running() == 2)
    leaving.cancel()
    wait_until(lambda: service.running() == 1)
    for _ in range(5):
        wait_for(staying, "progress")

    staying.cancel()
    wait_until(lambda: service.running() == 0)


def test_at_sigterm_a_running_call_ends_well_and_nothing_is_left(service):
    call = service.stream("toy", num_inference_steps=b"100")
    wait_for(call, "progress")
    descendants = psutil.Process(service.process.pid).children(recursive=True)
    service.process.send_signal(signal.SIGTERM)

    def ask_on() -> None:
        while True:
            service.ask("toy", num_inference_steps=b"1")

    with pytest.raises(grpc.RpcError) as failed:
        ask_on()
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert json.loads(failed.value.details())["error"]["code"] == "draining"
    assert [parse_event(part.prediction).event for part in call][-1] == "end"
    assert service.process.wait(60) == 0
    assert not [each for each in psutil.wait_procs(descendants, timeout=30)[1] if each.is_running()]
