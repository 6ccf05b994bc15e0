"""The parts of a multipart form, each of them in memory: a face never lies in a temporary file."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MOST = 64
_HEAD_BYTES = 8192
_TEXT = ("text/", "application/json")


@dataclass
class _Part:
    heads: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    is_file: bool = False
    is_whole: bool = False
    content: bytearray = field(default_factory=bytearray)

    def read_heads(self) -> None:
        """Read the name and the kind; a part is a file when it has a file name, or a type that is not text."""
        line = self.heads.get(b"content-disposition", b"")
        disposition, options = parse_options_header(line)
        if disposition != b"form-data" or b"name" not in options:
            raise FormParserError("a part without a name")
        self.name = options[b"name"].decode("utf-8", "replace")
        media = self.heads.get(b"content-type", b"text/plain").decode("latin-1").strip().lower()
        self.is_file = b"filename" in line.lower() or not media.startswith(_TEXT)

    @property
    def value(self) -> str | bytes:
        """A file's bytes, or the text; a part that is not UTF-8 counts as a file."""
        if self.is_file:
            return bytes(self.content)
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            return bytes(self.content)


def read_parts(content_type: str, body: bytes) -> list[tuple[str, str | bytes]]:
    """Names and values in their order, files as bytes; none where the form is malformed or has more than 64 parts."""
    parts: list[_Part] = []
    head, value = bytearray(), bytearray()

    def begin() -> None:
        if len(parts) == _MOST:
            raise FormParserError("too many parts")
        parts.append(_Part())

    def named(data: bytes, start: int, end: int) -> None:
        head.extend(data[start:end])

    def valued(data: bytes, start: int, end: int) -> None:
        value.extend(data[start:end])
        if len(head) + len(value) > _HEAD_BYTES:
            raise FormParserError("a header is too long")

    def head_ends() -> None:
        parts[-1].heads[bytes(head).lower()] = bytes(value)
        head.clear()
        value.clear()

    def end() -> None:
        parts[-1].is_whole = True

    try:
        boundary = parse_options_header(content_type)[1][b"boundary"]
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": named,
                "on_header_value": valued,
                "on_header_end": head_ends,
                "on_headers_finished": lambda: parts[-1].read_heads(),
                "on_part_data": lambda data, start, end: parts[-1].content.extend(memoryview(data)[start:end]),
                "on_part_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, KeyError):
        return []
    return [(part.name, part.value) for part in parts if part.is_whole]
