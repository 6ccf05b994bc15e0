"""A siege: hostile requests by every way in, and a neighbour who goes on. `make hostile` sends a thousand."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import requests
import skimage.data
from PIL import Image

from ddpm_service.archive import pack
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.server import Sockets
from tests.e2e.hostile import WAYS, Hostile, grpc_message, hostile, picture
from tests.e2e.house import House
from tests.e2e.traces import traces, watched

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(1800)]

COUNT = int(os.environ.get("HOSTILE", "60"))
AT_ONCE = 3
# Two callers. Who wishes ill may begin a request so often; a thousand take four minutes.
SECONDS = 0.25
MALLORY, BOB = ({"Authorization": f"Bearer a-token-of-the-name-{name}"} for name in ("mallory", "bob"))
METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
CALLED = (("authorization", MALLORY["Authorization"]),)
STREAM = METHOD.replace("/Predictions", "/StreamPredictions")
FILE_NAME = "holiday-of-a-stranger.png"
FINE = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}


class Neighbour(threading.Thread):
    """Somebody who asks for a face again and again."""

    def __init__(self, house: House) -> None:
        super().__init__(daemon=True)
        self.house, self.seconds, self.statuses, self.ends = house, [], Counter[int](), threading.Event()

    def run(self) -> None:
        while not self.ends.is_set():
            begin = time.monotonic()
            url = f"{self.house.url}/predictions/a?num_images=1&num_inference_steps=50"
            self.statuses[requests.post(url, picture("JPEG"), headers=BOB, timeout=120).status_code] += 1
            self.seconds.append(time.monotonic() - begin)
            time.sleep(0.05)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@contextmanager
def neighbour(house: House) -> Iterator[Neighbour]:
    other = Neighbour(house)
    other.start()
    try:
        yield other
    finally:
        other.ends.set()
        other.join(120)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, write_toy_bundle: Any) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("besieged")
    bundle = write_toy_bundle(folder / "bundle", name="a", seconds=0.01)
    temporary = folder / "tmp"  # all that it writes is below its own folder
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        tokens = folder / "tokens"
        tokens.write_text("".join(f"{of['Authorization'].split()[1]}\n" for of in (MALLORY, BOB)))
        environment = {"TMPDIR": str(temporary), "DDPM_TOKENS": str(tokens), "DDPM_RATE_PER_MINUTE": "100000"}
        with House(folder, lambda store: pack(bundle, store), environment).running() as house:
            yield house


def grpc_port(house: House) -> int:
    found = re.search(r"grpc://[\d.]+:(\d+)", house.said)
    assert found
    return int(found[1])


def send(house: House, channel: grpc.Channel, request: Hostile) -> tuple[str, bool]:
    """What came of it, and whether that is well."""
    if request.way == "gRPC":
        try:
            channel.unary_unary(METHOD)(request.body, timeout=120, metadata=CALLED)
        except grpc.RpcError as error:
            return error.code().name, error.code().name in FINE
        return "OK", True
    headers = {name: value for name, value in request.headers.items() if value.strip()}
    if request.way == "REST":
        answer = requests.post(f"{house.url}/predictions/a", request.body, headers=headers | MALLORY, timeout=120)
    else:
        api = Api(Sockets.of(house.config).inference)
        answer = api.request("POST", "/predictions/a", data=request.body, headers=headers, timeout=120)
    busy = answer.status_code == 503 and "Retry-After" in answer.headers
    return str(answer.status_code), answer.status_code < 500 or busy


def test_nothing_of_an_upload_is_logged_or_written_by_any_way_in(house):
    selfie = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(selfie, "PNG")
    whole = selfie.getvalue()
    packed = base64.b64encode(whole)
    api = Api(Sockets.of(house.config).inference)
    few = {"num_images": "1", "num_inference_steps": "2"}
    document = requests.get(f"{house.url}/openapi.json", timeout=60).json()
    ways = [
        (method, house.url + path.format(name="a", version="1.0"))
        for path, methods in document["paths"].items()
        for method in methods.keys() & {"post", "put", "patch"}
    ]
    assert len(ways) >= 7
    with watched(house.folder) as written, grpc.insecure_channel(f"127.0.0.1:{grpc_port(house)}") as channel:
        for body in (whole, whole[: len(whole) // 2]):
            text = base64.b64encode(body).decode()
            for method, url in ways:
                ask = partial(requests.request, method, url, timeout=60)
                ask(data=body, headers=MALLORY)
                ask(data=body, headers=MALLORY | {"Accept": "text/event-stream"})
                ask(data=body, headers=MALLORY | {"Content-Type": "application/x-www-form-urlencoded"})
                ask(data=gzip.compress(body), headers=MALLORY | {"Content-Encoding": "gzip"})
                ask(json={"image": text} | few, headers=MALLORY)
                ask(json={"prompt": text, text: 1}, headers=MALLORY)
                ask(data=few, files={"image": (FILE_NAME, body)}, headers=MALLORY)
                ask(data=body)  # without a token
            api.request("POST", "/predictions/a", data=body, timeout=60)
            api.request("POST", "/predictions/a", files={"image": (FILE_NAME, body)}, timeout=60)
            message = grpc_message({"data": body, "num_images": b"1"})
            with suppress(grpc.RpcError):
                channel.unary_unary(METHOD)(message, timeout=60, metadata=CALLED)
            with suppress(grpc.RpcError):
                list(channel.unary_stream(STREAM)(message, timeout=60, metadata=CALLED))
            with suppress(grpc.RpcError):
                channel.unary_unary(METHOD)(message, timeout=60)
        with suppress(requests.RequestException):  # leaves before its answer
            url = f"{house.url}/predictions/a"
            requests.post(url, json={"image": packed.decode(), "num_inference_steps": 300}, headers=MALLORY, timeout=2)
    assert written == []
    said = house.said.encode()
    assert b"MODEL_LOG" in said
    assert [piece for piece in (*traces(whole), *traces(packed), FILE_NAME.encode()) if piece in said] == []


def test_no_process_leaves_a_core(house):
    requests.post(f"{house.url}/predictions/a", picture("JPEG"), headers=BOB, timeout=60)
    processes = [psutil.Process(house.process.pid), *house.descendants()]
    assert any("ddpm_core.faces.helper" in each.cmdline() for each in processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):  # a helper has come to its end
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), process.cmdline()


def test_nobody_falls_and_the_neighbour_is_answered(house, capsys):
    front, worker = psutil.Process(house.process.pid), house.worker.pid
    with neighbour(house) as alone:
        time.sleep(15)
    before = front.memory_info().rss
    told: Counter[tuple[str, str, str]] = Counter()
    ill = []
    with (
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(house)}") as channel,
        neighbour(house) as besieged,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        sent = []
        for request in map(hostile, range(COUNT)):
            sent.append((request, pool.submit(send, house, channel, request)))
            time.sleep(SECONDS)
        for request, answer in sent:
            outcome, well = answer.result()
            told[request.kind, request.way, outcome] += 1
            if not well:
                ill.append((request.kind, request.way, outcome, len(request.body)))
    time.sleep(5)  # what is free goes back to the system every two
    grown = (front.memory_info().rss - before) / 2**20

    with capsys.disabled():
        print(f"\n{COUNT} hostile requests, one in {SECONDS:g} s, {AT_ONCE} at a time")
        for kind in sorted({kind for kind, _, _ in told}):
            print(f"  {kind:16}", *(f"{way}: {_counted(told, kind, way)};" for way in WAYS))
        print(f"  neighbour: {1000 * alone.median:.0f} ms alone, {1000 * besieged.median:.0f} ms besieged")
        print(f"  front door: {grown:+.0f} MiB")
    assert ill == []
    assert house.worker.pid == worker
    assert set(besieged.statuses) == {200}
    assert grown < 64


def _counted(told: Counter[tuple[str, str, str]], kind: str, way: str) -> str:
    return ", ".join(f"{outcome} {n}" for (k, w, outcome), n in sorted(told.items()) if (k, w) == (kind, way)) or "–"
