"""Talking to one of TorchServe's own APIs, at a port or at a unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

KEYS = "key_file.json"
"""The file of TorchServe's keys, which it makes anew at every start; it lies beside its sockets."""
_UNIX = "unix:"
_NOBODY = "http://torchserve"


class Api:
    """One API of a TorchServe.

    Args:
        address: where it listens, as `config.properties` has it: `http://127.0.0.1:8081` or `unix:/path`.
        key: which of the keys opens it, at a socket.

    Attributes:
        socket: the path of its socket, None at a port.
        url: what paths are put behind, in a request by `session`.
    """

    def __init__(self, address: str, key: Literal["inference", "management"] = "inference") -> None:
        self.address = address.rstrip("/")
        self.socket = Path(address.removeprefix(_UNIX)) if address.startswith(_UNIX) else None
        self.url = self.address if self.socket is None else _NOBODY
        self._key = key

    def headers(self) -> Mapping[str, str]:
        """What opens it now; nothing while TorchServe does not run."""
        if self.socket is None:
            return {}
        try:
            keys = json.loads((self.socket.parent / KEYS).read_text())
        except (OSError, ValueError):
            return {}
        return {"Authorization": f"Bearer {keys[self._key]['key']}"}

    def session(self) -> requests.Session:
        """Connections to it that are kept; not for longer than TorchServe runs."""
        session = requests.Session()
        session.trust_env = False  # a proxy has no business here
        if self.socket is not None:
            session.headers.update(self.headers())
            session.mount(_NOBODY, _UnixAdapter(self.socket))
        return session

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request; `more` and what it raises are those of `requests.request`."""
        with self.session() as session:
            return session.request(method, self.url + path, **more)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("torchserve")
        self._path = path

    def _new_conn(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(self.timeout)
            opened.connect(str(self._path))
        except OSError:
            opened.close()
            raise
        return opened


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("torchserve")
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self._path)


class _UnixAdapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = _UnixPool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> _UnixPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()
