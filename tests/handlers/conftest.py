"""TorchServe's side of a worker: its own Context, and the frontend's loop of continuous batching."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from ddpm_api import Event, parse_event
from handlers.ddpm_handler import Handler

ROOT = Path(__file__).parents[2]


class Job:
    """A client's request, and what it has got."""

    def __init__(self, key: str, fields: dict[str, Any], headers: dict[str, Any]) -> None:
        self.key, self.fields, self.headers = key, fields, headers
        self.calls = self.answers = 0
        self.chunks: list[bytes] = []
        self.status = 0
        self.content_type = ""
        self.response_headers: dict[str, str] = {}
        self.moved = False  # to another worker, after its answer had begun
        self.ended = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[Event]:
        return [parse_event(line) for line in self.body.splitlines() if line]

    @property
    def names(self) -> list[str]:
        return [event.event for event in self.events]

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.body))


class Frontend:
    """Calls the handler as TorchServe does, and holds it to what TorchServe survives."""

    def __init__(self, handler: Handler, context: Context) -> None:
        self.handler, self.context = handler, context
        self.jobs: list[Job] = []
        self.sent = 0

    def send(self, fields: dict[str, Any], headers: dict[str, str], *, grpc: bool = False) -> Job:
        described = {name: {"content-type": ""} for name in fields}
        http = {} if grpc else {"Host": "localhost"}
        self.sent += 1
        self.jobs.append(Job(f"job-{id(self)}-{self.sent}", fields, http | headers | described))
        return self.jobs[-1]

    def json(self, document: Any, **headers: str) -> Job:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.send({"body": bytearray(body)}, {"content-type": "application/json"} | named(headers))

    def raw(self, body: bytes, **headers: str) -> Job:
        return self.send({"body": bytearray(body)}, named(headers))

    def form(self, fields: dict[str, bytes], **headers: str) -> Job:
        content_type = {"Content-Type": "multipart/form-data; boundary=x"}
        return self.send({name: bytearray(value) for name, value in fields.items()}, content_type | named(headers))

    def grpc(self, **fields: bytes) -> Job:
        return self.send({name: bytearray(value) for name, value in fields.items()}, {}, grpc=True)

    def leave(self, job: Job) -> None:
        self.jobs.remove(job)

    def call(self) -> None:
        """One iteration: all open jobs, the new ones with their data."""
        jobs = list(self.jobs)
        self.context.request_ids = {i: job.key for i, job in enumerate(jobs)}
        self.context.request_processor = [RequestProcessor(job.headers) for job in jobs]
        self.context.stopping_criteria = None
        results = self.handler([{} if job.calls else job.fields for job in jobs], self.context)
        assert isinstance(results, list)
        assert len(results) == len(self.context.stopping_criteria) == len(jobs)
        for i, job in enumerate(jobs):
            job.calls += 1
            if i not in self.context.request_ids:  # TorchServe sends nothing, not even a status
                assert results[i] == b""
                continue
            assert isinstance(results[i], bytes)
            self._answer(i, job, results[i], self.context.stopping_criteria[i](results[i]))

    def _answer(self, i: int, job: Job, chunk: bytes, end: bool | None) -> None:
        headers = self.context.get_response_headers(i)
        assert all(isinstance(value, str) and value.isprintable() for value in headers.values())
        if job.answers == 0:  # frozen from now on
            assert end is not True, "the client would hang for ever"
            job.status, job.response_headers = self.context.get_response_status(i)[0], headers
            job.content_type = headers["content-type"]
            assert end is None or job.status < 400, "it would be closed before its body"
        elif end is None:
            assert job.moved, "a plain response is legal as the first answer only"
            return  # it is lost, and TorchServe asks for more
        if not any(isinstance(value, str) for value in job.headers.values()):
            assert end is None, "gRPC would drop it"
            assert headers["ts_stream_next"] == "false", "gRPC would kill the worker"
        job.answers += 1
        job.chunks.append(chunk)
        if end is not False:
            job.ended = True
            self.jobs.remove(job)

    def answer(self, *jobs: Job) -> None:
        """Call until something has been said to each: selfies are decoded meanwhile."""
        self._until(lambda: all(job.answers for job in jobs))

    def finish(self, *jobs: Job) -> None:
        """Call until they have ended."""
        self._until(lambda: all(job.ended for job in jobs))

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not done():
            assert time.monotonic() < deadline, "it does not end"
            self.call()


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory, write_toy_bundle: Any) -> Path:
    """An unpacked archive of the toy model."""
    folder = tmp_path_factory.mktemp("archive")
    write_toy_bundle(folder / "bundle")
    return folder


@pytest.fixture(scope="session")
def make_context() -> Callable[..., Context]:
    """TorchServe's context at load, for an unpacked archive."""

    def make(folder: Path, **settings: float) -> Context:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file open
            metrics = MetricsCacheYamlImpl(str(ROOT / "handlers" / "metrics.yaml"))
        metrics.initialize_cache()
        return Context("toy", str(folder), {}, 101, None, "0.12.0", True, metrics, {"handler": settings})

    return make


@pytest.fixture(scope="session")
def start(toy_folder: Path, make_context: Callable[..., Context]) -> Callable[..., Frontend]:
    """Load the toy model with settings of its own."""

    def start(**settings: float) -> Frontend:
        context = make_context(toy_folder, **settings)
        handler = Handler(context)
        handler.engine.max_rows = 16  # measured while the machine is busy it may be 1, and nobody would share a call
        return Frontend(handler, context)

    return start


@pytest.fixture(scope="session")
def loaded(start: Callable[..., Frontend]) -> Frontend:
    return start()


@pytest.fixture
def frontend(loaded: Frontend) -> Iterator[Frontend]:
    """A worker with nothing to do, which calls so often that tests can look between ticks."""
    handler = loaded.handler
    handler.settings = handler.settings.model_copy(update={"tick_seconds": 1e-9, "idle_seconds": 1000.0})
    yield Frontend(handler, loaded.context)
    Frontend(handler, loaded.context).call()  # all clients leave
    assert len(handler.engine) == 0
    handler.settings = handler.settings.model_copy(update={"grpc_seconds": 60.0})


@pytest.fixture(scope="session")
def faceless() -> bytes:
    """A photograph without a face."""
    from skimage import data

    file = io.BytesIO()
    Image.fromarray(data.coffee()).resize((300, 200)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def selfie() -> bytes:
    """A photograph of a face, in the public domain."""
    from skimage import data

    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "PNG")
    return file.getvalue()
