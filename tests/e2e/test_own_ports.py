"""What somebody does at TorchServe's own ports while requests run, and workers that live and answer nobody."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest

from ddpm_api import parse_event
from ddpm_service.torchserve.api import Api
from ddpm_service.torchserve.sockets import Sockets
from tests.e2e.house import House, events

pytestmark = pytest.mark.torchserve


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with House(tmp_path_factory.mktemp("house")).running() as house:
        yield house


def manage(house: House, method: str, path: str, **query: str | int) -> bool:
    """Call TorchServe's management over REST; return whether it did what was asked."""
    return Api(Sockets.of(house.config).management, "management").request(method, path, params=query, timeout=60).ok


@pytest.fixture(scope="module")
def rpc():
    """The messages and the client of TorchServe's management over gRPC."""
    sys.path.insert(0, str(Path(__file__).parent))
    yield grpc.protos_and_services("management.proto")
    sys.path.pop(0)


def call(house: House, rpc, method: str, message: str, **fields: str | int) -> bool:
    """Call TorchServe's management over gRPC, which has two ports; return whether it did what was asked."""
    messages, services = rpc
    api = Api(Sockets.of(house.config).management, "management")
    key = [(name.lower(), value) for name, value in api.headers().items()]
    listening = [each for child in house.descendants() for each in child.net_connections("tcp")]
    codes = []
    for port in {each.laddr.port for each in listening if each.status == psutil.CONN_LISTEN}:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = services.ManagementAPIsServiceStub(channel)
            try:
                getattr(client, method)(getattr(messages, message)(**fields), metadata=key, timeout=60)
            except grpc.RpcError as error:
                codes.append(error.code())
            else:
                return True
    assert set(codes) - {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}
    return False


TWO, ONE, NONE = ({"min_worker": workers, "max_worker": workers} for workers in (2, 1, 0))
VERSION = {"model_name": "a", "model_version": "1.0"}


@pytest.mark.parametrize(
    "scale",
    [
        lambda house, _: manage(house, "PUT", "/models/a/1.0", **TWO, synchronous="true"),
        lambda house, rpc: call(house, rpc, "ScaleWorker", "ScaleWorkerRequest", **VERSION, **TWO),
    ],
    ids=["REST", "gRPC"],
)
def test_a_second_worker_goes_at_once_and_those_under_way_go_on(house, rpc, scale):
    running = house.stream(200)
    told = house.said.count("a 1.0: it has 2 workers instead of 1")
    scale(house, rpc)  # whose answer may be that the second worker did not come
    beside = house.generate(num_inference_steps=2)
    assert beside.ok or beside.json()["error"]["code"] == "unavailable"
    assert events(running)[-1].event == "end"
    assert house.get("/readyz")[0] == 200
    wait_until(lambda: house.said.count("a 1.0: it has 2 workers instead of 1") > told)
    wait_until(lambda: len(house.management.describe("a")[0].workers) == 1)
    assert house.generate(num_inference_steps=2).ok


@pytest.mark.parametrize(
    ("take", "how"),
    [
        (
            lambda house, _: manage(house, "PUT", "/models/a/1.0", **NONE, synchronous="false"),
            "it has 0 workers instead of 1",
        ),
        (lambda house, _: manage(house, "DELETE", "/models/a/1.0"), "it is not registered any more"),
        (
            lambda house, rpc: call(house, rpc, "UnregisterModel", "UnregisterModelRequest", **VERSION),
            "it is not registered any more",
        ),
    ],
    ids=["REST: scale to 0", "REST: unregister", "gRPC: unregister"],
)
def test_a_version_that_is_taken_away_comes_back(house, rpc, take, how):
    running = house.stream(2000)
    assert take(house, rpc)
    house.wait("/readyz", 503)
    refused = house.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert events(running)[-1].event == "error"
    house.wait("/readyz")
    assert house.generate().ok
    assert f"a 1.0: {how}" in house.said


OTHERS = [
    ("REST", "GET", "/models", {"limit": 1}, True),
    ("REST", "GET", "/models/a/all", {}, True),
    ("REST", "GET", "/models/a/1.0", {"customized": "true"}, True),
    ("REST", "PUT", "/models/a/1.0", {**ONE, "synchronous": "true"}, True),
    ("REST", "PUT", "/models/a/1.0/set-default", {}, True),
    ("REST", "PUT", "/models/a/9.9/set-default", {}, False),
    ("REST", "POST", "/models", {"url": "a_1.0.mar", "initial_workers": 1, "synchronous": "true"}, False),
    ("gRPC", "ListModels", "ListModelsRequest", {"limit": 1}, True),
    ("gRPC", "DescribeModel", "DescribeModelRequest", {**VERSION, "customized": True}, True),
    ("gRPC", "ScaleWorker", "ScaleWorkerRequest", {**VERSION, **ONE, "synchronous": True}, True),
    # It takes nought for a number that nobody said, so for 1.
    ("gRPC", "ScaleWorker", "ScaleWorkerRequest", {**VERSION, **NONE}, True),
    ("gRPC", "SetDefault", "SetDefaultRequest", VERSION, True),
    ("gRPC", "SetDefault", "SetDefaultRequest", {"model_name": "a", "model_version": "9.9"}, False),
    ("gRPC", "RegisterModel", "RegisterModelRequest", {"url": "a_1.0.mar", "initial_workers": 1}, False),
]


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_any_other_call_disturbs_nobody(house, rpc, protocol):
    running = house.stream(300)
    for way, method, what, fields, done in OTHERS:
        if way == protocol:
            did = manage(house, method, what, **fields) if way == "REST" else call(house, rpc, method, what, **fields)
            assert did is done, (method, what, fields)
            assert house.generate(num_inference_steps=2).ok
            assert house.get("/readyz")[0] == 200
    assert events(running)[-1].event == "end"
    assert house.generate(num_inference_steps=2).ok


def test_a_form_that_it_cannot_read_is_its_sender_s_fault(house):
    api = Api(Sockets.of(house.config).inference)
    headers = {"Content-Type": "multipart/form-data; boundary="}
    answer = api.request("POST", "/predictions/a", data=b"--\r\n\r\n1\r\n----\r\n", headers=headers, timeout=60)
    assert answer.status_code == 400
    assert api.request("POST", "/predictions/a", files={"num_images": (None, "1")}, timeout=60).ok


def test_a_model_that_nobody_wants_goes_again(house):
    running = house.stream(50)
    query = {"url": "a_1.0.mar", "model_name": "b", "initial_workers": 1}
    manage(house, "POST", "/models", **query)  # whose answer may be that it has gone meanwhile
    assert events(running)[-1].event == "end"
    wait_until(lambda: "b 1.0: it is not wanted" in house.said)
    wait_until(lambda: house.management.models() == ["a"])


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


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
