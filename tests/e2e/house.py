"""A running `ddpm serve` with everything of it in one folder, on ports of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ddpm_api import Event, parse_event
from ddpm_service.torchserve.desired import Desired, save
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports, read_properties
from ddpm_service.torchserve.sockets import Sockets

ROOT = Path(__file__).parents[2]

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
    """A running `ddpm serve` with versions of the model "a".

    Args:
        folder: for all its files.
        make: writes the archive of version 1.0 into a model store; without it a toy's is written.
        environment: settings of the front door.
        patience: seconds of failed restarts after which TorchServe gives a worker of a toy up.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[[Path], object] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        patience: int = 60,
    ) -> None:
        self.folder, self.models, self.patience = folder, folder / "models.yaml", patience
        self.broken = folder / "broken"
        self.store = folder / "store"
        self.store.mkdir()
        front = Ports.free()
        self.url = f"http://127.0.0.1:{front.inference}"
        self.metrics_url = f"http://127.0.0.1:{front.metrics}"
        if make is None:
            self.make("1.0")
        else:
            make(self.store)
        self.want("1.0", "1.0")
        properties = read_properties(ROOT / "config.properties")
        for key in ("metrics_config", "vmargs"):
            properties[key] = properties[key].replace("handlers/", f"{ROOT}/handlers/")
        properties["model_store"] = str(self.store)
        self.config = folder / "config.properties"
        self.config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        self.management = Management(Sockets.of(self.config).management)
        command = [sys.executable, "-m", "ddpm_service", "serve"]
        command += ["--config", str(self.config), "--models", str(self.models)]
        command += ["--port", str(front.inference), "--grpc-port", "0", "--metrics-port", str(front.metrics)]
        self.output = (folder / "output").open("w")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            # How memory is kept is set for what computes; a front door is started without it.
            env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
            | dict(environment or {}),
        )

    def make(self, version: str, handler: str = HANDLER) -> None:
        model = {"modelName": "a", "modelVersion": version, "handler": "toy.py", "configFile": "model-config.yaml"}
        settings = (ROOT / "handlers" / "model-config.yaml").read_text()
        settings = settings.replace("maxRetryTimeoutInSec: 60", f"maxRetryTimeoutInSec: {self.patience}")
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

    def stream(self, steps: int, version: str | None = None) -> requests.Response:
        answer = requests.post(
            self.url + "/predictions/a" + (f"/{version}" if version else ""),
            json={"num_inference_steps": steps},
            headers={"Accept": "application/x-ndjson"},
            stream=True,
            timeout=60,
        )
        assert answer.status_code == 200
        return answer

    def ddpm_models(self, *words: str) -> subprocess.Popen[str]:
        """`ddpm models …`, as it is typed beside this service."""
        command = [sys.executable, "-m", "ddpm_service", "models", *words]
        command += ["--config", str(self.config), "--models", str(self.models)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @contextmanager
    def running(self) -> Iterator[House]:
        """Wait until it is ready; at the end nothing of it is left."""
        try:
            self.wait("/readyz")
            yield self
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(30)
            self.output.close()

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.management.describe("a")[0].workers[0].pid)

    @property
    def said(self) -> str:
        return (self.folder / "output").read_text()


def events(answer: requests.Response) -> list[Event]:
    return [parse_event(line) for line in answer.iter_lines() if line.strip()]
