"""The real OpenAI client against our image routes."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
import openai
import pytest
from PIL import Image

pytestmark = pytest.mark.anyio

SELFIE = ("me.jpg", b"\xff\xd8\xff\xe0 a selfie", "image/jpeg")
T = TypeVar("T")


async def ask(house, do: Callable[[openai.OpenAI], T], token: str = "any") -> T:
    def run() -> T:
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key=token, max_retries=0) as client:
            return do(client)

    return await asyncio.to_thread(run)


async def test_generations(house):
    answer = await ask(house, lambda client: client.images.generate(prompt="a face", model="faces", n=2, size="auto"))
    assert [Image.open(io.BytesIO(base64.b64decode(each.b64_json))).size for each in answer.data] == [(8, 8)] * 2
    assert (answer.size, answer.output_format, answer.usage.total_tokens) == ("8x8", "png", 0)
    assert [each["message"].split(":")[0] for each in answer.warnings] == ["prompt"]
    assert house.upstream.requests[0].image is None


async def test_edits_take_the_selfie_and_our_own_fields(house):
    def edit(client: openai.OpenAI) -> Any:
        more = {"mode": "faithful", "seed": 7}
        return client.images.edit(image=SELFIE, prompt="me", model="faces", n=3, size="8x8", extra_body=more)

    answer = await ask(house, edit)
    assert [each.seed for each in answer.data] == [5, 6, 7]
    asked = house.upstream.requests[0]
    assert (asked.image, asked.mode, asked.seed, asked.num_images) == (SELFIE[1], "faithful", 7, 3)


async def test_a_list_of_one_picture_is_a_picture(house):
    await ask(house, lambda client: client.images.edit(image=[SELFIE], prompt="", model="faces"))
    assert house.upstream.requests[0].image == SELFIE[1]


@pytest.mark.parametrize("partials", [0, 1, 3])
async def test_a_stream_has_so_many_partial_images_and_then_the_face(house, partials):
    def stream(client: openai.OpenAI) -> list[Any]:
        return list(client.images.generate(prompt="", model="faces", stream=True, partial_images=partials))

    events = await ask(house, stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * partials + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:-1]] == list(range(partials))
    assert events[-1].b64_json


async def test_a_stream_of_edits(house):
    def stream(client: openai.OpenAI) -> list[Any]:
        return list(client.images.edit(image=SELFIE, prompt="", model="faces", stream=True, partial_images=0))

    assert [event.type for event in await ask(house, stream)] == ["image_edit.completed"]


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "gpt-image-1"}, openai.NotFoundError, "model"),
        ({"size": "big"}, openai.UnprocessableEntityError, "size"),
        ({"size": "0x8"}, openai.UnprocessableEntityError, "size"),
        ({"size": "9999x9999"}, openai.UnprocessableEntityError, "size"),
        ({"n": 99}, openai.UnprocessableEntityError, "n"),
        ({"n": 1, "extra_body": {"num_images": 2}}, openai.UnprocessableEntityError, "n"),
        ({"response_format": "jpeg"}, openai.UnprocessableEntityError, "response_format"),
        ({"output_format": "gif"}, openai.UnprocessableEntityError, "output_format"),
        ({"partial_images": 9, "stream": True}, openai.UnprocessableEntityError, "partial_images"),
        ({"extra_body": {"stream": 3}}, openai.UnprocessableEntityError, "stream"),
        ({"extra_body": {"model": 3}}, openai.UnprocessableEntityError, "model"),
        ({"extra_body": {"size": ["8x8"]}}, openai.UnprocessableEntityError, "size"),
        ({"extra_body": {"surprise": 1}}, openai.UnprocessableEntityError, "surprise"),
        ({"model": "busy"}, openai.InternalServerError, None),
    ],
)
async def test_errors_are_the_clients_own_kinds_and_name_the_parameter(house, fields, error, param):
    with pytest.raises(error) as caught:
        await ask(house, lambda client: client.images.generate(**{"prompt": "", "model": "faces", **fields}))
    assert caught.value.param == param
    assert caught.value.code
    assert caught.value.type in {"invalid_request_error", "server_error"}


async def test_a_mask_is_taken_and_told_to_change_nothing(house):
    mask = ("mask.png", b"\x89PNG a mask", "image/png")
    answer = await ask(house, lambda client: client.images.edit(image=SELFIE, mask=mask, prompt="", model="faces"))
    assert [each["message"].split(",")[0] for each in answer.warnings] == ["mask: no effect"]
    assert house.upstream.requests[0].image == SELFIE[1]


async def test_a_missing_picture_is_refused(house):
    data = aiohttp.MultipartWriter("form-data")
    data.append("x").set_content_disposition("form-data", name="prompt")
    async with house.client.post("/v1/images/edits", data=data) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (422, "image_required")


async def test_a_stream_that_fails_raises_in_the_client(house):
    def stream(client: openai.OpenAI, model: str) -> list[Any]:
        return list(client.images.generate(prompt="", model=model, stream=True))

    with pytest.raises(openai.APIError, match="Too big"):
        await ask(house, lambda client: stream(client, "late"))
    with pytest.raises(openai.InternalServerError, match="Full"):
        await ask(house, lambda client: stream(client, "busy"))


async def test_the_token_is_the_clients_key(open_house):
    async with open_house(tokens="alice alices-token-of-many") as house:
        with pytest.raises(openai.AuthenticationError):
            await ask(house, lambda client: client.images.generate(prompt="", model="faces"))
        assert await ask(house, lambda client: client.images.generate(prompt=""), "alices-token-of-many")


async def test_the_list_of_models(house):
    listed = await ask(house, lambda client: list(client.models.list()))
    assert "faces" in [model.id for model in listed]
    assert (await ask(house, lambda client: client.models.retrieve("faces"))).default_version == "1"
    with pytest.raises(openai.NotFoundError):
        await ask(house, lambda client: client.models.retrieve("nobody"))
