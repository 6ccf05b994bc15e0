"""`ddpm serve`: what it starts, keeps alive, and takes with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import psutil
import pytest
import requests

from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.desired import Desired, save
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports, TorchServe, TorchServeError, read_properties
from ddpm_service.torchserve.sockets import Sockets

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.torchserve
_FREE_PORTS = ("--port", "0", "--grpc-port", "0", "--metrics-port", "0")


class Service:
    """A running `ddpm serve` and what it says."""

    def __init__(self, config: Path, models: Path) -> None:
        self.models = models
        self.sockets = Sockets.of(config)
        self.management = Management(self.sockets.management)
        self.lines: list[str] = []
        self._news = threading.Condition()
        program = "import sys, typer; from ddpm_service.cli.serve import serve; typer.run(serve)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "--config", str(config), "--models", str(models), *_FREE_PORTS],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._news:
                    self.lines.append(line)
                    self._news.notify_all()

    def wait_for(self, text: str, start: int = 0) -> int:
        """Wait until it says something after line `start`; return the number of lines by then."""
        with self._news:
            said = self._news.wait_for(lambda: any(text in line for line in self.lines[start:]), timeout=90)
            assert said, f"never said {text!r}: {self.lines[start:]}"
            return len(self.lines)

    def default(self) -> str:
        answer = Api(self.sockets.inference).request("POST", "/predictions/a", json={}, timeout=30)
        return answer.json()["images"][0]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join(30)
        return status


def write_models(file: Path, default: str, versions: dict[str, str]) -> None:
    save(Desired.model_validate({"models": {"a": {"default": default, "versions": versions}}}), file)


@pytest.fixture
def serve(tmp_path, store, make_toy):
    """Start `ddpm serve` with one model of one version on ports of its own."""
    started: list[Service] = []

    def serve(**toy: str) -> Service:
        properties = read_properties(ROOT / "config.properties") | {"model_store": str(store)}
        for key in ("metrics_config", "vmargs"):
            properties[key] = properties[key].replace("handlers/", f"{ROOT}/handlers/")
        config = tmp_path / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        write_models(tmp_path / "models.yaml", "1.0", {"1.0": make_toy("a", "1.0", **toy)})
        started.append(Service(config, tmp_path / "models.yaml"))
        return started[-1]

    yield serve
    for service in started:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in psutil.wait_procs(processes, timeout=30)[1] if process.is_running()]


def test_it_serves_what_the_file_says_while_that_changes_and_leaves_nothing(serve, make_toy):
    service = serve()
    seen = service.wait_for('ready: a"')
    assert service.default() == "1.0"

    write_models(service.models, "2.0", {"1.0": "a_1.0.mar", "2.0": make_toy("a", "2.0")})
    seen = service.wait_for('ready: a"', seen)
    assert service.default() == "2.0"

    service.models.write_text("models: [")
    seen = service.wait_for("is not YAML", seen)
    assert service.default() == "2.0"

    family = service.descendants()
    assert len(family) >= 4  # guard, launcher, Java, worker
    assert service.end(signal.SIGTERM) == 0
    assert alive(family) == []


def test_a_worker_and_a_torchserve_that_die_come_back_with_their_default(serve, make_toy):
    service = serve()
    seen = service.wait_for('ready: a"')
    write_models(service.models, "2.0", {"1.0": "a_1.0.mar", "2.0": make_toy("a", "2.0")})
    seen = service.wait_for('ready: a"', seen)

    worker = service.management.describe("a")[0].workers[0].pid
    os.kill(worker, signal.SIGKILL)
    seen = service.wait_for("its worker is back", service.wait_for("its worker has died", seen))
    assert service.default() == "2.0"

    java = next(process for process in service.descendants() if process.name() == "java")
    java.kill()
    service.wait_for('ready: a"', service.wait_for("TorchServe has ended", seen))
    assert service.default() == "2.0"
    assert service.end(signal.SIGINT) == 0


def test_killed_itself_it_leaves_nothing(serve):
    service = serve()
    service.wait_for('ready: a"')
    family = service.descendants()

    service.end(signal.SIGKILL)

    assert alive(family) == []


def test_told_to_stop_while_it_starts_it_leaves_nothing(serve):
    service = serve()
    service.wait_for("loading a_1.0.mar")
    family = service.descendants()

    assert service.end(signal.SIGTERM) == 0

    assert alive(family) == []


def test_a_default_that_cannot_be_loaded_ends_it_with_the_reason(serve):
    service = serve(handler="def handle(data, ctx):\n    raise ValueError('broken weights')\n")

    assert service.process.wait(90) == 1

    service.wait_for("ddpm serve: nothing can be served: a 1.0: ValueError: broken weights")


def test_no_port_of_what_it_starts_answers_who_cannot_read_its_folder(serve):
    service = serve()
    service.wait_for('ready: a"')
    listening = [each for child in service.descendants() for each in child.net_connections("tcp")]
    ports = {each.laddr.port for each in listening if each.status == psutil.CONN_LISTEN}

    assert len(ports) == 2  # TorchServe's gRPC knows no unix sockets
    refused = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
    for port in ports:
        with pytest.raises(requests.ConnectionError):
            requests.post(f"http://127.0.0.1:{port}/models?url=a_1.0.mar", timeout=10)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for method in ("management.ManagementAPIsService/ListModels", "inference.InferenceAPIsService/Ping"):
                call = channel.unary_unary(f"/org.pytorch.serve.grpc.{method}")
                with pytest.raises(grpc.RpcError) as refusal:
                    call(b"", timeout=10)
                assert refusal.value.code() in refused
    assert service.sockets.folder.stat().st_mode & 0o777 == 0o700


def test_a_taken_port_is_named(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Ports.free().settings() | {
            "model_store": str(store),
            "management_address": f"http://127.0.0.1:{port}",
        }

        with pytest.raises(TorchServeError, match=f"port {port} is in use"):
            TorchServe(ROOT / "config.properties", settings).start()
