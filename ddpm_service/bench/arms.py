"""What is compared: the front door, TorchServe's own dynamic batching, Flask with a lock; each started and stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from ddpm_service import archive
from ddpm_service.errors import ServiceError
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.desired import Desired, save
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports, TorchServe, free_port, read_properties
from ddpm_service.torchserve.sockets import Sockets

_START_SECONDS = 600.0
_STOP_SECONDS = 30.0
# Both other arms are written where the core may be imported.
_PROGRAMS = "ddpm_service.cli.bench_arms"


@contextmanager
def front_door(bundle: Path, config: Path) -> Iterator[tuple[str, Api]]:
    """Ours: `ddpm serve` on free ports. Yields the address of its model, and the TorchServe behind it."""
    with tempfile.TemporaryDirectory(prefix="ddpm-bench-") as name:
        folder = Path(name)
        packed = archive.pack(bundle, folder)
        manifest = archive.read_manifest(packed)
        model, version = manifest["name"], manifest["version"]
        models = folder / "models.yaml"
        save(Desired().with_version(model, version, packed.name, default=True), models)
        port = free_port()
        # Relative paths count from the configuration's folder, so it must lie beside the original.
        properties = read_properties(config) | {"model_store": str(folder)}
        with tempfile.NamedTemporaryFile(
            "w", dir=config.resolve().parent, prefix=".bench-", suffix=".properties"
        ) as own:
            own.write("".join(f"{key}={value}\n" for key, value in properties.items()))
            own.flush()
            command = [sys.executable, "-m", "ddpm_service", "serve", "--config", own.name]
            command += ["--models", str(models), "--port", str(port), "--grpc-port", "0", "--metrics-port", "0"]
            with _process(command, f"http://127.0.0.1:{port}/readyz"):
                yield f"http://127.0.0.1:{port}/predictions/{model}", Api(Sockets.of(Path(own.name)).inference)


@contextmanager
def flask_and_lock(bundle: Path, dtype: str) -> Iterator[str]:
    """A plain loop behind a lock, as the origin program has it."""
    port = free_port()
    program = f"from {_PROGRAMS} import flask_and_lock; flask_and_lock({str(bundle.resolve())!r}, {dtype!r}, {port})"
    with _process([sys.executable, "-c", program], f"http://127.0.0.1:{port}/ready"):
        yield f"http://127.0.0.1:{port}/generate"


@contextmanager
def dynamic_batching(bundle: Path, config: Path, dtype: str, *, batch_size: int, delay: int) -> Iterator[str]:
    """A plain loop in a TorchServe that collects requests for `delay` milliseconds and answers them together."""
    with tempfile.TemporaryDirectory(prefix="ddpm-bench-") as name:
        store = Path(name)
        settings = {"minWorkers": 1, "maxWorkers": 1, "batchSize": batch_size, "maxBatchDelay": delay}
        settings |= {"responseTimeout": 600, "startupTimeout": 600}
        model = {"modelName": "arm", "modelVersion": "1", "handler": "arm.py", "configFile": "model-config.yaml"}
        with zipfile.ZipFile(store / "arm.mar", "w") as file:
            file.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
            call = f"batching({str(bundle.resolve())!r}, {dtype!r})"
            file.writestr("arm.py", f"from {_PROGRAMS} import batching\nhandle = {call}\n")
            file.writestr("model-config.yaml", json.dumps(settings))
        properties = Ports.free().settings() | {"model_store": str(store), "load_models": ""}
        with TorchServe(config, properties, echo=None) as server:
            Management(server.management_url).register("arm.mar")
            yield f"{server.inference_url}/predictions/arm"


@contextmanager
def _process(command: list[str], ready: str) -> Iterator[None]:
    """Run a server until the block ends; it begins when `ready` answers 200."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    last = (output.read().strip().splitlines() or ["it said nothing"])[-1]
                    raise ServiceError(f"an arm of the benchmark did not start: {last[:300]}")
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
