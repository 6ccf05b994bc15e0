"""HTTP/1.1 on a connection, hardened: heads and waiting are bounded, and a connection can be cut."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ddpm_api import Error, ErrorBody

# The key, in a scope's extensions, of a function that cuts the connection. Closing it would wait for a client that
# reads nothing.
ABORT = "ddpm.abort"
# The key of a function that holds back what is written (True) and lets it go (False). uvicorn writes the head of an
# answer alone, and the client would be woken twice.
CORK = "ddpm.cork"
_HEAD_BYTES = 64 * 1024
# A request's head must be complete so long after the connection was made, or after the last answer.
_HEAD_SECONDS = 30.0
# A client that reads nothing for so long is left, also while the connection is being closed.
_UNREAD_SECONDS = 30.0
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
_TOO_LARGE = Error(
    code="headers_too_large", message="The request's head is too large.", allowed=f"at most {_HEAD_BYTES} bytes"
)


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, which itself waits for ever for the end of a head of any length."""

    _head_bytes = 0
    _in_head = True
    _deaf = False
    _moves = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
            own = transport.get_extra_info("socket")
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_UNREAD_SECONDS * 1000))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and count those that bring neither a head to its end nor a body on: heads and trailers."""
        if self._deaf:
            return
        if self._in_head:
            data = _without_upgrade(data)
        moves = self._moves
        super().data_received(data)
        if self._moves != moves:
            self._head_bytes = 0
        elif not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                if self._in_head:
                    self._refuse(431, _TOO_LARGE)
                else:
                    self._abort()

    def on_message_begin(self) -> None:
        """Let the application cut the connection."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["extensions"] = {ABORT: self._abort, CORK: self._cork}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer, after the body, is dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended in time. One that comes before the last answer ends the connection after that answer.

        Uvicorn would read nothing more while it waits its turn, and not see the client leave.
        """
        self._in_head = False
        self._moves += 1
        self._stop_timer()
        if self._answering is None:
            super().on_headers_complete()
        else:
            self._deaf, self._answering.keep_alive = True, False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._moves += 1
        if not self._deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body has ended, and the next head may begin."""
        self._in_head = True
        self._moves += 1
        if not self._deaf:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, also while a refused body still arrives."""
        super().on_response_complete()
        if not self.transport.is_closing() and self._answering is None:
            self._await_head()

    @property
    def _answering(self) -> Any:
        """Uvicorn's state of the answer under way, by a private name; None where none is, or without such a name."""
        cycle = getattr(self, "cycle", None)
        return None if getattr(cycle, "response_complete", True) else cycle

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in our shape."""
        self._refuse(400, Error(code="malformed_request", message=msg))

    def _cork(self, hold: bool) -> None:
        if hasattr(socket, "TCP_CORK") and not self.transport.is_closing():  # Linux has it
            self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, hold)

    def _abort(self) -> None:
        # Without lingering, so that the kernel also drops what it still holds for the client.
        if not self.transport.is_closing():
            own = self.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _await_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._abort)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, error: Error) -> None:
        body = ErrorBody(error=error).to_json()
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """Bytes of a head without its wish for another protocol: httptools would take its body for that protocol's.

    `curl --http2` and Java's client wish for one with every request.
    """
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    if _UPGRADE.search(data, 0, end) is None:
        return data
    return _UPGRADE.sub(b"\r\nx-upgrade:", data[:end]) + data[end:]
