"""Requests that share a worker: they join, leave and fail between each other's steps. The toy's calls take 30 ms."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

pytestmark = pytest.mark.torchserve

FOR_EVER = 1000  # steps: half a minute


def wait_until(true: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_request_joins_between_the_steps_of_another(served):
    first = served.stream("toy", num_inference_steps=FOR_EVER)
    first.wait_for("progress")

    assert served.post("toy", {"num_inference_steps": 3}).json()["images"]
    assert served.post("toy", {"num_inference_steps": 1}).json()["images"]

    assert first.is_alive()
    first.leave()


def test_a_client_that_leaves_frees_its_place(served):
    def running() -> float:
        return served.figure("ddpm_requests_running", "toy")

    staying, leaving = (served.stream("toy", num_inference_steps=FOR_EVER) for _ in range(2))
    wait_until(lambda: running() == 2)
    leaving.leave()
    wait_until(lambda: running() == 1)
    seen = len(staying.events)
    wait_until(lambda: len(staying.events) > seen + 5)

    staying.leave()  # the last one: no handler call tells of it
    wait_until(lambda: running() == 0)
    assert served.post("toy", {"num_inference_steps": 2}).ok


def test_a_step_that_fails_ends_its_request_alone(served):
    beside = served.stream("toy", num_inference_steps=60)
    beside.wait_for("progress")
    failing = served.stream("toy", num_inference_steps=16)
    failing.join(60)
    whole = served.post("toy", {"num_inference_steps": 16}).json()
    beside.join(60)

    assert failing.names[-1] == "error"
    assert whole["error"]["code"] == failing.events[-1].error.code == "generation_failed"
    assert beside.names[-1] == "end"
    assert "5ec2e7" not in served.log.getvalue()


def test_a_killed_worker_cuts_its_streams_and_returns(served):
    beside = served.stream("toy/1.0", num_inference_steps=60)
    cut = served.stream("toy/2.0", num_inference_steps=FOR_EVER)
    cut.wait_for("progress")
    served.worker("toy", "2.0").kill()
    cut.join(60)

    assert not cut.is_alive()
    assert cut.names[-1] == "progress"  # no end frame: it has failed
    wait_until(lambda: all(version.ready for version in served.management.describe("toy")))
    assert served.post("toy/2.0", {"num_inference_steps": 2}).json()["version"] == "2.0"
    beside.join(60)
    assert beside.names[-1] == "end"


# -- TorchServe's own gRPC


@pytest.fixture(scope="module")
def rpc(served: Any) -> Iterator[tuple[Any, Any]]:
    """The messages, and a client of the service."""
    sys.path.insert(0, str(Path(__file__).parent))
    messages, services = grpc.protos_and_services("inference.proto")
    sys.path.pop(0)
    with grpc.insecure_channel(served.server.grpc_address) as channel:
        yield messages, services.InferenceAPIsServiceStub(channel)


def test_grpc_answers_whole_beside_a_stream(rpc, served, selfie):
    messages, client = rpc
    beside = served.stream("toy", num_inference_steps=100)
    beside.wait_for("progress")

    request = messages.PredictionsRequest(
        model_name="toy", input={"data": selfie, "num_images": b"2", "num_inference_steps": b"5"}
    )
    unary = client.Predictions(request, timeout=60)
    streamed = list(client.StreamPredictions(request, timeout=60))

    assert unary.prediction.count(b'"b64_json"') == 2
    assert [part.prediction.count(b'"b64_json"') for part in streamed] == [2]
    beside.join(60)
    assert [event.step for event in beside.events if event.event == "progress"] == [*range(1, 101)]
    assert beside.names[-1] == "end"


def test_grpc_refuses_by_the_error_object_and_the_worker_lives(rpc, served, selfie):
    messages, client = rpc
    worker = served.worker("toy", "1.0")
    for fields in ({}, {"data": b"none"}, {"data": selfie, "nmu_images": b"1"}, {"num_inference_steps": b"16"}):
        request = messages.PredictionsRequest(model_name="toy", model_version="1.0", input=fields)
        assert client.Predictions(request, timeout=60).prediction.startswith(b'{"error":')
        assert [part.prediction[:9] for part in client.StreamPredictions(request, timeout=60)] == [b'{"error":']

    assert worker.is_running()
    picture = messages.PredictionsRequest(model_name="toy", input={"seed": b"1", "accept": b"image/png"})
    assert client.Predictions(picture, timeout=60).prediction.startswith(b"\x89PNG")
