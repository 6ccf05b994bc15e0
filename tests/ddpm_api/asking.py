"""A picture to ask with, and what a refusal says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ddpm_api import (
    InvalidRequest,
)

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
BASE64 = base64.b64encode(PICTURE).decode()


def refusal(parse: Any, *given: Any) -> dict[str, Any]:
    """The error object that something is answered with."""
    with pytest.raises(InvalidRequest) as caught:
        parse(*given)
    body = json.loads(caught.value.body.to_json())
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field", "given", "allowed"}
    assert 400 <= caught.value.status < 500
    return body["error"]
