"""The Python clients: a request in, its events or its result out, over plain HTTP.

`Client` waits, `AsyncClient` is awaited. They ask the same and understand answers by the same code (`protocol`), of the
front door and of TorchServe's own inference port alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpm_service.client.blocking import Client
from ddpm_service.client.protocol import DEFAULT_MODEL, RequestFailed, Unreachable

if TYPE_CHECKING:
    from ddpm_service.client.asynchronous import AsyncClient

__all__ = ["DEFAULT_MODEL", "AsyncClient", "Client", "RequestFailed", "Unreachable"]


def __getattr__(name: str) -> Any:
    """Import the asynchronous client when it is asked for: the commands do without it."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddpm_service.client.asynchronous import AsyncClient

    return AsyncClient
