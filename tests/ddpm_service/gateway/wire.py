"""Bytes on a connection, as a client of its own mind sends them."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Leave at once, also with what was not sent yet."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def raw(house, *pieces: bytes, pause: float = 0) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(answered(reader), 60)
    finally:
        await hang_up(writer)


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: its status, headers and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
