"""The bytes of a JSON document as values, their number bounded."""

from __future__ import annotations

import json
from typing import Any

from ddpm_api.errors import InvalidRequest

MOST_VALUES = 10_000
"""Honest documents have few. 32 MiB of them take seconds and a gigabyte, and Python's lock stops all other requests."""


def read_json(body: bytes | bytearray) -> Any:
    """The parsed document, or the bytes themselves where they are none, as TorchServe hands them on.

    Raises:
        InvalidRequest: `too_large`, it has too many values.
    """
    if (values := body.count(b",")) > MOST_VALUES:
        allowed = f"at most {MOST_VALUES} values"
        raise InvalidRequest("too_large", "Too many values.", field="body", given=values, allowed=allowed)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body
