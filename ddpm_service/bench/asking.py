"""One request for one picture, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests

from ddpm_service.errors import ServiceError


def post(url: str, session: requests.Session | None = None, **body: Any) -> bytes:
    """Ask for a picture; give the PNG.

    Raises:
        ServiceError: it was refused.
    """
    answer = (session or requests).post(url, json={"num_images": 1, **body}, headers={"Accept": "image/png"})
    if not answer.ok:
        raise ServiceError(f"{url}: HTTP {answer.status_code}: {answer.text[:200]}")
    return answer.content


def seconds(do: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin
