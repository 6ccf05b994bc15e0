"""Only those who mean this service are answered: it knows its names, and pages of other sites make nothing with it."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ddpm_api import Error
from ddpm_service.gateway.answer import error_answer
from ddpm_service.gateway.auth import is_loopback
from ddpm_service.gateway.settings import Settings

HEALTH = frozenset({"/healthz", "/readyz", "/ping"})
"""Paths that are asked by any name: load balancers' checks have names of their own, and the answer is a word."""
_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE)
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGE = frozenset({"same-origin", "none"})


class Addressed:
    """An ASGI application that answers who knows its name, and makes nothing for pages of other sites.

    A page whose name an attacker lets point here (DNS rebinding) asks by that name; so the `Host` header must be a
    loopback name, the name that is listened on, or one of `DDPM_HOSTS`; off loopback also an IP address, which cannot
    be rebound, or this machine's name. What makes or changes something is not done for pages of other origins but those
    of `DDPM_CORS_ORIGINS`.

    Args:
        app: what answers.
        host: the address that is listened on.
        settings: names and origins beside it.
    """

    def __init__(self, app: ASGIApp, host: str, settings: Settings) -> None:
        self._app = app
        self._loopback = is_loopback(host)
        machine = [] if self._loopback else [socket.gethostname(), socket.gethostname() + ".local"]
        self._names = {name.lower() for name in ("localhost", host, *machine, *settings.hosts)}
        self._endings = tuple(name[1:] for name in self._names if name.startswith("*"))
        self._origins = set(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse (ASGI)."""
        error = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if error is None else error_answer(error))(scope, receive, send)

    def _refusal(self, scope: Scope) -> Error | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if scope["path"] not in HEALTH and not (len(hosts) == 1 and self._knows(hosts[0])):
            message = "This service does not go by the name that it was asked by."
            allowed = "localhost, or a name that its operator put into DDPM_HOSTS"
            return Error(code="unknown_host", message=message, field="Host", allowed=allowed)
        if scope["method"] not in _HARMLESS and self._is_foreign(headers):
            message = "Pages of other sites may not ask this service."
            allowed = "an origin that its operator put into DDPM_CORS_ORIGINS"
            return Error(code="cross_site", message=message, field="Origin", allowed=allowed)
        return None

    def _knows(self, host: str) -> bool:
        parts = _HOST.fullmatch(host)
        if parts is None:
            return False
        name = parts["name"].lower()
        with suppress(ValueError):
            return ip_address(name.strip("[]")).is_loopback or not self._loopback
        return name in self._names or name.endswith(self._endings)

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if "*" in self._origins or origin in self._origins:
            return False
        if headers.get("sec-fetch-site", "none") not in _OWN_PAGE:
            return True
        return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
