"""Both clients, by the same tests, against a real HTTP server."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm_api import ApiError, EndEvent, Event, ImageEvent, Mode, ProgressEvent, QueuedEvent, Result
from ddpm_service.client import AsyncClient, Client, RequestFailed, Unreachable
from ddpm_service.errors import ServiceError

PHOTO = b"\xff\xd8 a photograph"


class Awaited:
    """`AsyncClient`, awaited at every call."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._loop = asyncio.Runner()
        self._client = AsyncClient(url, token)

    def __enter__(self) -> Awaited:
        self._loop.run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.__aexit__(None, None, None))
        self._loop.close()

    def generate(self, *image: Any, **fields: Any) -> Result:
        return self._loop.run(self._client.generate(*image, **fields))

    def stream(self, *image: Any, **fields: Any) -> Generator[Event, None, None]:
        events = self._client.stream(*image, **fields)
        try:
            while event := self._loop.run(anext(events, None)):  # type: ignore[arg-type]
                yield event
        finally:
            self._loop.run(events.aclose())


@pytest.fixture(params=[Client, Awaited], ids=["waiting", "awaited"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(service: Any, kind: Any) -> Any:
    with kind(service.url) as client:
        yield client


# --- what it asks ---------------------------------------------------------------------------------------------------


def test_a_selfie_and_its_fields_arrive_as_they_were_given(client: Client, service: Any) -> None:
    client.generate(
        PHOTO, model="good", num_images=2, mode=Mode.LIKENESS, resemblance=0.25, return_target=True, seed=7, face=None
    )
    (request,) = service.requests
    assert request.image == PHOTO
    assert request.model_fields_set == {"image", "num_images", "mode", "resemblance", "return_target", "seed"}
    assert (request.num_images, request.mode, request.resemblance) == (2, "likeness", 0.25)
    assert (request.return_target, request.seed) == (True, 7)


def test_without_a_selfie_the_fields_alone_arrive(client: Client, service: Any) -> None:
    client.generate(model="good")
    client.generate(model="good", num_images=2, output_format="webp")
    assert [request.model_fields_set for request in service.requests] == [set(), {"num_images", "output_format"}]


def test_a_selfie_can_be_named_by_its_path_and_its_name_stays_here(
    client: Client, service: Any, tmp_path: Path
) -> None:
    photo = tmp_path / "holiday.jpg"
    photo.write_bytes(PHOTO)
    client.generate(photo, model="good")
    client.generate(str(photo), model="good")
    assert [request.image for request in service.requests] == [PHOTO, PHOTO]
    with pytest.raises(FileNotFoundError):
        client.generate(tmp_path / "none.jpg", model="good")


def test_a_selfie_may_be_at_hand_in_any_way(client: Client, service: Any, tmp_path: Path) -> None:
    portrait = Image.new("RGB", (20, 20), "red")
    path = tmp_path / "me.png"
    portrait.save(path)
    with path.open("rb") as file:
        for way in (path, str(path), path.read_bytes(), file, portrait, np.asarray(portrait)):
            client.generate(way, model="good")
    assert {request.image for request in service.requests} == {path.read_bytes()}


def test_what_lies_on_its_side_is_sent_upright_and_a_box_as_its_numbers(client: Client, service: Any) -> None:
    turned, file = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.new("RGB", (20, 30)).save(file, "PNG", exif=turned)
    client.generate(Image.open(file), model="good", align=(1, 2, 18, 19.5))
    (request,) = service.requests
    assert Image.open(io.BytesIO(request.image)).size == (30, 20)
    assert str(request.align) == "1,2,18,19.5"


def test_a_face_is_a_picture_and_saved_as_it_came(client: Client, service: Any, tmp_path: Path) -> None:
    face = client.generate(model="good").images[0]
    assert face.image.getpixel((0, 0)) == (255, 0, 0)
    face.save(tmp_path / "face.png")
    assert (tmp_path / "face.png").read_bytes() == face.data


def test_model_and_version_are_the_path(client: Client, service: Any) -> None:
    client.generate(model="good")
    client.generate(model="good", version="1.0/?x")
    assert service.paths == ["/predictions/good", "/predictions/good/1.0%2F%3Fx"]


def test_events_are_asked_for_and_the_token_is_shown(client: Client, service: Any, kind: Any) -> None:
    client.generate(model="good")
    with kind(service.url + "/", token="secret") as authorised:
        authorised.generate(model="good")
    plain, signed = service.headers
    assert plain["Accept"] == signed["Accept"] == "application/x-ndjson"
    assert "Authorization" not in plain
    assert signed["Authorization"] == "Bearer secret"


def test_one_connection_serves_again_and_again(client: Client, service: Any) -> None:
    for _ in range(3):
        client.generate(PHOTO, model="good")
    assert len(service.paths) == 3
    assert len(service.ports) == 1


# --- what it answers ------------------------------------------------------------------------------------------------


def test_the_events_add_up_to_the_result(client: Client) -> None:
    result = client.generate(PHOTO, model="good")
    assert (result.id, result.model, result.version) == ("r1", "good", "1.0")
    assert [(image.index, image.seed) for image in result.images] == [(0, 7), (1, 8)]
    assert [warning.code for warning in result.warnings] == ["dim"]


def test_each_event_is_heard_in_order(client: Client) -> None:
    kinds = [event.event for event in client.stream(PHOTO, model="good")]
    assert kinds == ["queued", "warning", "started", "progress", "image", "image", "end"]


def test_an_event_is_heard_while_the_rest_is_still_to_come(client: Client, service: Any) -> None:
    with closing(client.stream(PHOTO, model="endless")) as events:
        assert isinstance(next(events), QueuedEvent)
        assert any(isinstance(event, ImageEvent) for event in events)
        assert not service.left.is_set()


def test_leaving_the_loop_closes_the_connection(client: Client, service: Any) -> None:
    for event in client.stream(PHOTO, model="endless"):
        if isinstance(event, ProgressEvent):
            break
    assert service.left.wait(30)
    assert isinstance([*client.stream(PHOTO, model="good")][-1], EndEvent)


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "code", "status", "message"),
    [
        ("refusing", "not_an_image", 415, "That is no picture."),
        ("unknown", "not_found", 404, "Model not found: unknown"),
        ("large", "too_large", 413, "413"),
        ("broken", "internal", 500, "500"),
        ("failing", "out_of_memory", 500, "Too big."),
        ("cut", "unfinished", 502, "broke off"),
        ("short", "unfinished", 502, "broke off"),
    ],
)
def test_a_failure_says_what_happened(client: Client, model: str, code: str, status: int, message: str) -> None:
    with pytest.raises(RequestFailed, match=message) as caught:
        client.generate(PHOTO, model=model)
    assert (caught.value.error.code, caught.value.status) == (code, status)
    assert isinstance(caught.value, ApiError)
    assert isinstance(caught.value, ServiceError)


def test_a_refusal_carries_the_whole_error(client: Client) -> None:
    with pytest.raises(RequestFailed) as caught:
        client.generate(PHOTO, model="refusing")
    assert (caught.value.error.field, caught.value.error.allowed) == ("image", "PNG, JPEG")


def test_a_closed_port_is_unreachable(kind: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with kind(url) as client, pytest.raises(Unreachable, match="cannot be reached") as caught:
            client.generate(model="good")
    assert caught.value.url.startswith(url)


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_what_is_no_address_is_unreachable(url: str, kind: Any) -> None:
    with kind(url) as client, pytest.raises(Unreachable):
        client.generate(model="good")


def test_a_token_that_cannot_be_sent_is_not_repeated(kind: Any) -> None:
    with kind("http://127.0.0.1:1", token="my\nsecret") as client, pytest.raises(Unreachable) as caught:
        client.generate(model="good")
    assert "secret" not in str(caught.value)


def test_another_kind_of_server_is_unreachable(client: Client) -> None:
    with pytest.raises(Unreachable, match="not this service"):
        client.generate(model="stranger")


# --- trying again ---------------------------------------------------------------------------------------------------


def test_a_busy_service_that_says_when_is_asked_again(client: Client, service: Any) -> None:
    assert len(client.generate(PHOTO, model="soon").images) == 2
    assert len(service.paths) == 3
    assert {request.image for request in service.requests} == {PHOTO}


def test_a_service_that_stays_busy_is_given_up(client: Client, service: Any) -> None:
    with pytest.raises(RequestFailed, match="queue is full") as caught:
        client.generate(PHOTO, model="busy")
    assert (caught.value.status, caught.value.error.retry_after) == (503, 0)
    assert len(service.paths) == 4


@pytest.mark.parametrize("model", ["full", "limited", "vanishing", "broken", "cut", "refusing", "failing"])
def test_nothing_else_is_asked_twice(client: Client, service: Any, model: str) -> None:
    with pytest.raises(ServiceError):
        client.generate(PHOTO, model=model)
    assert len(service.paths) == 1


def test_a_rate_limit_says_when_to_come_back(client: Client) -> None:
    with pytest.raises(RequestFailed) as caught:
        client.generate(PHOTO, model="limited")
    assert (caught.value.error.code, caught.value.error.retry_after) == ("rate_limited", 9)


# --- many at once ---------------------------------------------------------------------------------------------------


def test_many_are_asked_at_once_of_one_asynchronous_client(service: Any) -> None:
    async def ask() -> list[Result]:
        async with AsyncClient(service.url) as client:
            return await asyncio.gather(*(client.generate(PHOTO, model="good") for _ in range(5)))

    assert [len(result.images) for result in asyncio.run(ask())] == [2] * 5
