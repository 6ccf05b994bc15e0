"""`ddpm serve` with the real handler and engine behind it: caps, and clients that leave. The toy's steps take 0.4 s."""

from __future__ import annotations

import re
import struct
import time
import zlib

import pytest
import requests

from ddpm_api import parse_event
from ddpm_core.faces.decode import MAX_PIXELS
from ddpm_service.archive import pack
from tests.e2e.house import House, events

pytestmark = pytest.mark.torchserve


@pytest.fixture(scope="module")
def house(tmp_path_factory, write_toy_bundle):
    folder = tmp_path_factory.mktemp("engine")
    bundle = write_toy_bundle(folder / "bundle", name="a", seconds=0.4)
    with House(folder, lambda store: pack(bundle, store)).running() as house:
        yield house


def row_steps(house: House) -> float:
    """Steps of single images that the engine has made."""
    text = requests.get(house.metrics_url + "/metrics", timeout=30).text
    return sum(float(value) for value in re.findall(r"^ddpm_row_steps_total{[^}]*} (\S+)$", text, re.MULTILINE))


def settled_row_steps(house: House) -> float:
    """The same when nothing runs; a worker tells its figures once a second."""
    seen = [0.0, row_steps(house)]
    while seen[-1] != seen[-2]:
        time.sleep(2)
        seen.append(row_steps(house))
    return seen[-1]


@pytest.mark.parametrize("leaves_at", [1, 6])
def test_a_client_that_leaves_frees_its_place_within_two_steps(house, leaves_at):
    before = settled_row_steps(house)
    staying = house.stream(20)
    leaving = house.stream(1000)
    for line in leaving.iter_lines(chunk_size=1):
        if line.strip() and getattr(parse_event(line), "step", None) == leaves_at:
            break
    leaving.close()
    assert events(staying)[-1].event == "end"

    made = settled_row_steps(house) - before - 20
    assert leaves_at <= made <= leaves_at + 2


def png_bomb(width: int, height: int) -> bytes:
    """A whole, valid picture of two colours, a thousand times smaller than what it decodes to."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


TOO_MUCH = {
    "pixels": (
        lambda: png_bomb(17000, 16000),
        {"code": "too_many_pixels", "field": "image", "given": "17000x16000", "allowed": "at most 204800000 pixels"},
    ),
    "pixels that Pillow would not even open": (
        lambda: png_bomb(32000, 32000),
        {
            "code": "too_many_pixels",
            "field": "image",
            "given": "over 512 million pixels",
            "allowed": f"at most {MAX_PIXELS} pixels",
        },
    ),
    "bytes": (
        lambda: bytes(33 * 2**20),
        {"code": "too_large", "field": "body", "given": 33 * 2**20, "allowed": f"at most {32 * 2**20} bytes"},
    ),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_large_a_picture_is_refused_beside_a_stream_that_goes_on(house, what):
    make, told = TOO_MUCH[what]
    body, worker = make(), house.worker
    memory = worker.memory_info().rss
    beside = house.stream(10)
    answer = requests.post(house.url + "/predictions/a", data=body, timeout=60)
    assert answer.status_code == 413
    assert told.items() <= answer.json()["error"].items()
    assert events(beside)[-1].event == "end"
    assert house.worker == worker
    assert worker.memory_info().rss - memory < 64 * 2**20
