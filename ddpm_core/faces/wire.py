"""Messages between a process and its helpers: a line of JSON, then bytes.

Never a pickle: what a helper says is not trusted, for a decoder that was taken over speaks through it.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.faces.align import Target
from ddpm_core.faces.decode import KEEP_SIDE, Picture
from ddpm_core.faces.find import Face

_HEAD = struct.Struct("!II")
_LONGEST_JSON = 2**20
LONGEST = 3 * (2 * KEEP_SIDE) ** 2  # bytes of the largest picture that is kept

Said = dict[str, Any]


def send(to: socket.socket, said: Said, payload: bytes | memoryview = b"") -> None:
    """Send a message."""
    text = json.dumps(said).encode()
    to.sendall(_HEAD.pack(len(text), len(payload)) + text)
    to.sendall(payload)


def receive(of: socket.socket, longest: int) -> tuple[Said, bytearray] | None:
    """Receive a message, None at the end of what is sent.

    Raises:
        ValueError: it is none, or its payload is longer than `longest`.
    """
    head = _exactly(of, _HEAD.size)
    if head is None:
        return None
    length, size = _HEAD.unpack(head)
    if length > _LONGEST_JSON or size > longest:
        raise ValueError("the message is too long")
    text, payload = _exactly(of, length), _exactly(of, size)
    if text is None or payload is None:
        return None
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("the message is not an object")
    return said, payload


def from_result(result: Picture | Target) -> tuple[Said, bytes]:
    """What a helper says of what it made, and the pixels."""
    said = {each.name: getattr(result, each.name) for each in fields(result) if each.name != "pixels"}
    if isinstance(result, Target):
        return said | {"faces": [asdict(face) for face in result.faces]}, result.pixels.tobytes()
    return said | {"size": result.pixels.size}, result.pixels.tobytes()


def to_picture(said: Said, pixels: bytearray) -> Picture:
    """The picture that a helper tells of.

    Raises:
        ValueError, TypeError, KeyError: it tells of none.
    """
    about = _tuples(said)
    return Picture(Image.frombytes("RGB", about.pop("size"), bytes(pixels)), **about)


def to_target(said: Said, pixels: bytearray, side: int) -> Target:
    """The target that a helper tells of.

    Raises:
        ValueError, TypeError, KeyError: it tells of none.
    """
    about = _tuples(said) | {"faces": tuple(Face(**_tuples(face)) for face in said["faces"])}
    return Target(np.frombuffer(pixels, np.uint8).reshape(side, side, 3), **about)


def from_refusal(refusal: InvalidInput) -> Said:
    """What a helper says of a picture that cannot be used."""
    given = refusal.given if isinstance(refusal.given, str | int | float | None) else str(refusal.given)
    return {
        "code": refusal.code,
        "message": refusal.message,
        "field": refusal.field,
        "given": given,
        "allowed": refusal.allowed,
    }


def to_refusal(said: Said) -> InvalidInput:
    """The refusal that a helper tells of."""
    return InvalidInput(said.pop("code"), said.pop("message"), **said)


def _exactly(of: socket.socket, size: int) -> bytearray | None:
    got = bytearray(size)
    view = memoryview(got)
    while len(view):
        read = of.recv_into(view)
        if not read:
            return None
        view = view[read:]
    return got


def _tuples(value: Any) -> Any:
    """Tuples where JSON has lists."""
    if isinstance(value, list):
        return tuple(_tuples(each) for each in value)
    return {name: _tuples(each) for name, each in value.items()} if isinstance(value, dict) else value
