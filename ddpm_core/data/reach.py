"""Connections to the public internet alone: what a list from elsewhere names may not reach into this network."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Any, Self
from urllib import request

# IPv4 addresses as IPv6 writes them where there is no IPv4 (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")


class NotPublic(OSError):
    """An address that is not on the public internet."""


class Reach:
    """A way to fetch by http and https until a deadline. A context manager; at its end nothing is open.

    Each address that a name resolves to is checked, at every redirect too, and the connection goes to the address that
    was checked. Proxies are used only where private addresses are allowed: they resolve names themselves.

    Args:
        seconds: after so long every connection is cut, whatever it does.
        allow_private: reach loopback, private and link-local addresses too.
    """

    def __init__(self, seconds: float, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._connections: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self.over = False

    def open(self, asked: request.Request, timeout: float) -> Any:
        """Ask, following redirects; what it returns and raises is `urllib.request.urlopen`'s."""
        opener = request.OpenerDirector()
        handlers = [_Http(self), _Https(self), request.HTTPRedirectHandler(), request.HTTPDefaultErrorHandler()]
        handlers += [request.HTTPErrorProcessor(), request.UnknownHandler()]
        for handler in [*handlers, *([request.ProxyHandler()] if self._allow_private else [])]:
            opener.add_handler(handler)
        return opener.open(asked, timeout=timeout)

    def connect(self, address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        """Connect to the first of a name's addresses that answers, if all of them may be reached."""
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for _, _, _, _, where in found:
            if not (self._allow_private or is_public(str(where[0]))):
                raise NotPublic(f"{where[0]} is not on the public internet; --allow-private fetches from there too")
        last: OSError = OSError("the name has no address")
        for family, kind, protocol, _, where in found:
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(timeout)
                opened.connect(where)
            except OSError as error:
                opened.close()
                last = error
                continue
            # A copy: TLS takes the socket itself over.
            self._connections.append(opened.dup())
            if self.over:
                self._cut()
            return opened
        raise last

    def _cut(self) -> None:
        self.over = True
        for each in list(self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        for each in self._connections:
            each.close()


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public internet, also where IPv6 wraps an IPv4 one."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address in _TRANSLATED:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    every = (address, *_wrapped(address))
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in every)


def _wrapped(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    if isinstance(address, IPv4Address):
        return []
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    return [each for each in inner if each is not None]


class _Http(request.HTTPHandler):
    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self._reach = reach

    def http_open(self, asked: request.Request) -> Any:
        return self.do_open(partial(_made, HTTPConnection, self._reach), asked)


class _Https(request.HTTPSHandler):
    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self._reach = reach

    def https_open(self, asked: request.Request) -> Any:
        return self.do_open(partial(_made, HTTPSConnection, self._reach), asked)


def _made(kind: type[HTTPConnection], reach: Reach, host: str, **settings: Any) -> HTTPConnection:
    connection = kind(host, **settings)
    connection._create_connection = reach.connect  # type: ignore[attr-defined]
    return connection
