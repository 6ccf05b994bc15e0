"""Programs that speak to OpenAI's image routes, byte by byte as they do it: they get their faces."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.ddpm_service.gateway.wire import raw

pytestmark = pytest.mark.anyio

SELFIE = b"\xff\xd8\xff\xe0 a selfie"
OTHER = b"\xff\xd8\xff\xe0 somebody else"
PACKED = base64.b64encode(SELFIE).decode()


async def send(house, path: str, head: str, body: bytes) -> tuple[int, dict[str, Any]]:
    begin = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    status, _, answer = await raw(house, begin.encode() + body)
    return status, json.loads(answer)


async def send_json(house, path: str, document: Any) -> tuple[int, dict[str, Any]]:
    return await send(house, path, "Content-Type: application/json\r\n", json.dumps(document).encode())


def part(name: str, content: bytes | str, more: str = "") -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


def picture(name: str, content: bytes = SELFIE) -> bytes:
    return part(name, content, '; filename="me.jpg"\r\nContent-Type: image/jpeg')


async def send_form(house, *parts: bytes) -> tuple[int, dict[str, Any]]:
    form = b"".join(parts) + b"--B--\r\n"
    return await send(house, "/v1/images/edits", "Content-Type: multipart/form-data; boundary=B\r\n", form)


def warned(answer: dict[str, Any]) -> list[str]:
    return [notice["message"].split(":")[0] for notice in answer["warnings"]]


def opened(b64: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64)))


async def test_langchains_dalle_wrapper_reads_the_address(house):
    asked = {"prompt": "a face", "model": "faces", "n": 1, "size": "1024x1024", "quality": "standard"}
    status, answer = await send_json(house, "/v1/images/generations", asked)
    assert status == 200
    assert answer["data"][0]["url"].startswith("data:image/png;base64,")
    assert opened(answer["data"][0]["url"].partition(",")[2]).size == (1024, 1024)
    assert warned(answer) == ["size", "prompt", "quality"]


async def test_open_webui_generates(house):
    asked = {"model": "faces", "prompt": "a face", "n": 1, "size": "512x512", "response_format": "b64_json"}
    status, answer = await send_json(house, "/v1/images/generations", asked)
    assert status == 200, answer
    assert (answer["size"], answer["data"][0].keys()) == ("512x512", {"b64_json", "seed"})
    enlarged = opened(answer["data"][0]["b64_json"])
    assert (enlarged.size, enlarged.info["true_size"]) == ((512, 512), "8x8")


async def test_open_webui_edits(house):
    texts = [part("model", "faces"), part("prompt", "me"), part("n", "1"), part("size", ""), part("quality", "auto")]
    status, answer = await send_form(house, *texts, picture("image[]"))
    assert (status, answer["size"]) == (200, "8x8")
    assert (house.upstream.requests[0].image, house.upstream.requests[0].num_images) == (SELFIE, 1)


async def test_what_a_form_leaves_empty_was_left_out(house):
    texts = [part(name, "") for name in ("model", "prompt", "n", "size", "quality", "seed", "response_format", "mask")]
    status, answer = await send_form(house, *texts, picture("image"))
    assert (status, warned(answer)) == (200, ["model"])


async def test_litellm_generates(house):
    asked = {
        "prompt": "a face",
        "model": "faces",
        "n": 2,
        "size": "8x8",
        "quality": "high",
        "background": "transparent",
    }
    asked |= {"response_format": "url", "style": "vivid", "user": "u-1", "moderation": "low"}
    status, answer = await send_json(house, "/v1/images/generations", asked)
    assert status == 200
    assert [face.keys() for face in answer["data"]] == [{"url", "seed"}] * 2
    assert set(warned(answer)) == {"prompt", "quality", "background", "style", "user", "moderation"}


@pytest.mark.parametrize(
    ("second", "warnings"),
    [(picture("image[]"), []), (part("image[]", "UploadFile(filename='me.jpg')"), ["image[]"])],
    ids=["the same again", "no picture"],
)
async def test_litellm_edits_with_image_under_both_names(house, second, warnings):
    status, answer = await send_form(house, part("model", "faces"), picture("image"), second)
    assert (status, warned(answer)) == (200, warnings)
    assert house.upstream.requests[0].image == SELFIE


@pytest.mark.parametrize("names", [("image", "image[]"), ("image[]", "image[]"), ("image", "data"), ("body", "image")])
async def test_two_pictures_are_never_taken_for_one(house, names):
    pictures = [picture(name, content) for name, content in zip(names, (SELFIE, OTHER), strict=True)]
    status, answer = await send_form(house, part("model", "faces"), *pictures)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (422, "conflict", "image")
    assert not house.upstream.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"image": PACKED},
        {"image": f"data:image/jpeg;base64,{PACKED}"},
        {"image_url": f"data:image/jpeg;base64,{PACKED}"},
        {"image_url": {"url": f"data:image/jpeg;base64,{PACKED}"}},
        {"image": [{"image_url": f"data:image/jpeg;base64,{PACKED}"}]},
        {"images": [{"type": "input_image", "image_url": f"data:image/jpeg;base64,{PACKED}"}], "mask": None},
    ],
    ids=str,
)
async def test_edits_take_json(house, fields):
    status, _ = await send_json(house, "/v1/images/edits", {"model": "faces", "prompt": "me", "n": 2, **fields})
    assert status == 200
    assert (house.upstream.requests[0].image, house.upstream.requests[0].num_images) == (SELFIE, 2)


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"image": "http://127.0.0.1/me.jpg"}, 422, "image"),
        ({"image_url": {"url": "https://example.org/me.jpg"}}, 422, "image_url"),
        ({"image": {"file_id": "f-1"}}, 422, "image"),
        ({"image": "?"}, 422, "image"),
        ({"images": []}, 422, "image"),
    ],
    ids=str,
)
async def test_edits_in_json_without_a_picture_of_their_own_are_refused_by_name(house, fields, status, field):
    got, answer = await send_json(house, "/v1/images/edits", {"model": "faces", **fields})
    assert (got, answer["error"]["param"]) == (status, field)
    assert not house.upstream.requests


async def test_an_empty_model_is_the_first_with_a_warning(house):
    status, answer = await send_json(
        house, "/v1/images/generations", {"model": "", "size": "", "response_format": None}
    )
    assert (status, answer["model"], warned(answer)) == (200, "faces", ["model"])


@pytest.mark.parametrize(("size", "given"), [("1792x1024", 1024), ("4x4", 4)])
async def test_another_size_is_resized_to_and_said(house, size, given):
    status, answer = await send_json(house, "/v1/images/generations", {"model": "faces", "size": size})
    assert (status, answer["size"], answer["warnings"][0]["code"]) == (200, f"{given}x{given}", "resized")
    assert opened(answer["data"][0]["b64_json"]).size == (given, given)


async def test_what_is_allowed_is_what_this_route_takes(house):
    status, answer = await send(house, "/v1/images/edits", "Content-Type: image/jpeg\r\n", SELFIE)
    assert (status, answer["error"]["allowed"]) == (415, "multipart/form-data, application/json")
    status, answer = await send(house, "/v1/images/generations", "Content-Type: text/plain\r\n", b"{}")
    assert (status, answer["error"]["allowed"]) == (415, "application/json")
    status, answer = await send(house, "/generate", "Content-Type: text/plain\r\n", b"{}")
    assert (status, answer["error"]["allowed"]) == (415, "application/json")
    status, answer = await send_json(house, "/v1/images/generations", {"model": "faces", "siez": "8x8"})
    assert {"n", "size", "model", "num_images"} <= set(answer["error"]["allowed"].split(", "))
    assert "Did you mean size?" in answer["error"]["message"]
