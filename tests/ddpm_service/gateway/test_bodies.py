"""What a body is, and what a part of one: by its content, whatever it calls itself."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.ddpm_service.gateway.wire import raw

pytestmark = pytest.mark.anyio

SELFIE = b"\xff\xd8\xff\xe0 a selfie"


async def send(house, head: str, body: bytes, path: str = "/predictions/faces") -> tuple[int, dict]:
    begin = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nAccept: application/json\r\n{head}"
    status, _, answer = await raw(house, f"{begin}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return status, json.loads(answer)


def form(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(b"--B\r\n%s\r\n\r\n%s\r\n" % (head.encode(), body) for head, body in parts) + b"--B--\r\n"


FORM = "Content-Type: multipart/form-data; boundary=B\r\n"
NAME = 'Content-Disposition: form-data; name="image"'


@pytest.mark.parametrize(
    "head",
    [
        f'{NAME}; filename="me.jpg"\r\nContent-Type: image/jpeg',
        f"{NAME}; filename*=UTF-8''%e2%82%ac.jpg\r\nContent-Type: image/jpeg",
        f"{NAME}; filename*=UTF-8''me.jpg",
        f"{NAME}\r\nContent-Type: image/jpeg",
        f"{NAME}\r\nContent-Type: application/octet-stream",
        NAME,
        f"{NAME}\r\nContent-Type: text/plain",
    ],
)
async def test_a_part_is_a_picture_by_its_type_or_its_bytes(house, head):
    status, _ = await send(house, FORM, form((head, SELFIE), ('Content-Disposition: form-data; name="seed"', b"7")))
    assert status == 200
    assert (house.upstream.requests[0].image, house.upstream.requests[0].seed) == (SELFIE, 7)


async def test_a_text_in_the_place_of_the_picture_is_told_as_one(house):
    status, answer = await send(house, FORM, form((NAME, b"me.jpg")))
    assert (status, answer["error"]["field"], answer["error"]["code"]) == (422, "image", "wrong_type")


@pytest.mark.parametrize("names", [("image", "image[]"), ("data", "body"), ("image[]", "data"), ("image", "image")])
async def test_one_picture_under_two_names_is_a_conflict(house, names):
    parts = [(NAME.replace("image", name) + "\r\nContent-Type: image/png", SELFIE) for name in names]
    status, answer = await send(house, FORM, form(*parts))
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (422, "conflict", "image")


@pytest.mark.parametrize(
    "body", [form((NAME, SELFIE))[:-20], b"--B\r\n\r\nx\r\n--B--\r\n", b"x", form(*[(NAME, b"")] * 65)], ids=len
)
async def test_a_malformed_form_is_told(house, body):
    status, answer = await send(house, FORM, body)
    assert (status, answer["error"]["code"]) == (422, "empty_form")


@pytest.mark.parametrize("media", ["", "text/plain", "text/json", "application/octet-stream"])
async def test_json_under_another_type_is_told_by_that_name(house, media):
    status, answer = await send(house, f"Content-Type: {media}\r\n" if media else "", b' {"seed": 1}')
    assert (status, answer["error"]["field"], answer["error"]["given"]) == (415, "Content-Type", media)
    assert "application/json" in answer["error"]["message"]


def deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", deflated),
        ("identity", bytes),
    ],
)
async def test_a_compressed_body_is_what_it_was(house, coding, pack):
    body = pack(form((NAME, SELFIE)))
    assert (await send(house, f"{FORM}Content-Encoding: {coding}\r\n", body))[0] == 200
    assert house.upstream.requests[0].image == SELFIE


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "zip"])
async def test_other_codings_are_refused_by_that_name(house, coding):
    status, answer = await send(house, f"{FORM}Content-Encoding: {coding}\r\n", b"x")
    error = answer["error"]
    assert (status, error["field"], error["given"]) == (415, "Content-Encoding", coding)
    assert error["allowed"] == "gzip, deflate, or none"


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(SELFIE * 99)[:-9], gzip.compress(SELFIE) + b"more"], ids=["other", "cut", "more"]
)
async def test_a_body_that_is_not_what_it_says_is_refused(house, body):
    status, answer = await send(house, "Content-Encoding: gzip\r\n", body)
    assert (status, answer["error"]["field"]) == (400, "Content-Encoding")


async def test_a_small_body_that_becomes_a_large_one_is_refused_in_time(open_house):
    async with open_house(max_bytes=2**20) as house:
        bomb = gzip.compress(bytes(2**24))
        status, answer = await send(house, "Content-Encoding: gzip\r\n", bomb)
        assert (status, answer["error"]["code"]) == (413, "too_large")
