"""Requests that wish the service ill, each made from its seed alone."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import skimage.data
from PIL import Image

WAYS = ("REST", "gRPC", "TorchServe")
_KINDS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "TIFF", "BMP")
_FIELDS = ("num_images", "seed", "mode", "sampler", "align", "face", "eta", "resemblance", "num_inference_steps", "wat")
_MEDIA = ("image/jpeg", "application/octet-stream", "text/plain", "application/json", "multipart/form-data", "x/y", "a")


@dataclass
class Hostile:
    """One request.

    Attributes:
        kind: what is wrong with it.
        way: by which it goes.
        body: its body; over gRPC the message.
        headers: beside those that the client makes.
    """

    kind: str
    way: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def hostile(seed: int) -> Hostile:
    """Make the request of a seed; the ways take turns."""
    chance = random.Random(seed)
    way = WAYS[seed % len(WAYS)]
    kind = chance.choice(sorted(_MAKERS))
    body, headers = _MAKERS[kind](chance)
    if way == "gRPC":
        return Hostile(kind, way, body if kind == "noise" else grpc_message({"data": body, "num_images": b"1"}))
    return Hostile(kind, way, body, {"Content-Type": "application/octet-stream"} | headers)


@cache
def picture(kind: str) -> bytes:
    """A face of 96 × 96 pixels."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()[:260, 100:360]).resize((96, 96)).save(file, kind)
    return file.getvalue()


def grpc_message(fields: dict[str, bytes], model: bytes = b"a") -> bytes:
    """A PredictionsRequest as it travels."""

    def part(number: int, content: bytes) -> bytes:
        length, size = len(content), b""
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    return part(1, model) + b"".join(part(3, part(1, k.encode()) + part(2, v)) for k, v in fields.items())


def _damaged(chance: random.Random) -> bytes:
    data = bytearray(picture(chance.choice(_KINDS)))
    for _ in range(chance.choice((1, 3, 30))):
        at = chance.randrange(len(data))
        match chance.randrange(6):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at : at + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
            case 2:
                del data[at : at + chance.randrange(1, 200)]
            case 3:
                data[at:at] = data[: chance.randrange(1, 400)]
            case 4:
                data[at:at] = chance.randbytes(chance.randrange(1, 3000))
            case _:
                data[at:] = picture(chance.choice(_KINDS))[at:]
        if not data:
            break
    return bytes(data)


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _scans(chance: random.Random) -> bytes:
    """A progressive JPEG of many empty scans."""
    side, scans = chance.choice((64, 1000, 8000)), chance.choice((50, 90, 3200))
    head = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64)
    head += _segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\0")
    head += _segment(0xC4, b"\0\0\2" + bytes(14) + b"\0\1") + _segment(0xC4, b"\x10\0\2" + bytes(14) + b"\xe0\1")
    blocks = (-(-side // 8)) ** 2
    first = _segment(0xDA, b"\x01\x01\0\0\0\0") + bytes((2 * blocks + 7) // 8)
    refining = _segment(0xDA, b"\x01\x01\0\x01\x3f\x10") + b"\x3f\xff" * (blocks // 32767 + 1)
    return head + first + _segment(0xDA, b"\x01\x01\0\x01\x3f\x01") + b"\x3f\xff" + refining * scans + b"\xff\xd9"


def _large(chance: random.Random) -> bytes:
    """Many pixels in few bytes."""
    kind, options = chance.choice((("PNG", {}), ("GIF", {}), ("TIFF", {"compression": "tiff_adobe_deflate"})))
    mode = "F" if kind == "TIFF" else chance.choice(("L", "P"))
    side = chance.choice((2000, 4000, 7900))
    return _flat(kind, mode, side, tuple(options.items()))


@cache
def _flat(kind: str, mode: str, side: int, options: tuple[tuple[str, Any], ...]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **dict(options))
    return file.getvalue()


def _remarks(chance: random.Random) -> bytes:
    """A picture behind very many remarks."""
    gif = picture("GIF")
    begin = gif.index(b",")
    count = chance.choice((1000, 100_000, 3_000_000))
    return gif[:begin] + b"!\xf0\x01a\0" * count + gif[begin:]


def _segments(chance: random.Random) -> bytes:
    """A picture behind very many segments, each of which a reader of headers must step over."""
    jpeg = picture("JPEG")
    segment = chance.choice((_segment(0xFE, b""), _segment(0xDB, b"\0" + b"\1" * 64), b"\xff"))
    return jpeg[:2] + segment * chance.choice((1000, 100_000, 400_000)) + jpeg[2:]


def _raw(make: Callable[[random.Random], bytes]) -> Callable[[random.Random], tuple[bytes, dict[str, str]]]:
    return lambda chance: (make(chance), {})


def _json(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    values: list[Any] = [None, -1, 10**400, 1e999, "x" * 9999, [], {}, True, "½", [[[[]]]], float("nan")]
    document: Any = {name: chance.choice(values) for name in chance.sample(_FIELDS, chance.randrange(5))}
    document["image"] = base64.b64encode(_damaged(chance)).decode()[: chance.choice((3, 999, 10**9))]
    text = json.dumps(document).encode()
    text = chance.choice(
        (text, text[:-9], b"[" * 50_000, text.replace(b"{", b"\xff{"), json.dumps([document]).encode())
    )
    return text, {"Content-Type": "application/json"}


def _form(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    edge = chance.choice(("x", "x" * 70, "--", "ä"))
    parts = [f'name="{chance.choice(_FIELDS)}"'.encode() for _ in range(chance.choice((0, 3, 500)))]
    parts.append(b'name="image"; filename="\r\n"')
    body = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n1\r\n" % (edge.encode(), p) for p in parts)
    body += chance.choice((b"", b"--%s--\r\n" % edge.encode(), picture("PNG")))
    return body, {"Content-Type": f"multipart/form-data; boundary={edge}".encode("ascii", "ignore").decode()}


def _headed(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    headers = {
        "Content-Type": chance.choice(_MEDIA),
        "Accept": chance.choice(("*/*", "image/webp;q=0", ",,,", "text/event-stream", "x" * 3000, "a/b;q=nan")),
        "X-Request-Id": chance.choice(("ok", "x" * 4000, "{}", "%0d%0aSet-Cookie:x")),
        "Prefer": chance.choice(("return=minimal", "wait=100", "\t")),
    }
    return picture(chance.choice(_KINDS)), headers


def _packed(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    """A little that unpacks to much."""
    return _bomb(chance.choice((10**5, 10**7, 10**8))), {"Content-Encoding": chance.choice(("gzip", "deflate", "br"))}


@cache
def _bomb(size: int) -> bytes:
    return gzip.compress(bytes(size), 6)


_MAKERS: dict[str, Callable[[random.Random], tuple[bytes, dict[str, str]]]] = {
    "damaged picture": _raw(_damaged),
    "cut-off picture": _raw(lambda chance: _damaged(chance)[: chance.randrange(200)]),
    "many scans": _raw(_scans),
    "many pixels": _raw(_large),
    "many remarks": _raw(_remarks),
    "many segments": _raw(_segments),
    "noise": _raw(lambda chance: chance.randbytes(chance.choice((0, 1, 64, 100_000)))),
    "JSON": _json,
    "form": _form,
    "headers": _headed,
    "packed body": _packed,
}
