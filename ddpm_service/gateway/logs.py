"""Log lines: JSON in a pipe, words on a terminal. Never a body, a file's name, a token or an exception's message."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

log = logging.getLogger("ddpm")

_FIELDS = (
    "request_id",
    "method",
    "path",
    "status",
    "seconds",
    "caller",
    "model",
    "version",
    "outcome",
    "images",
)
_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")


def request_id(given: str | None) -> str:
    """The client's `X-Request-Id` where it is fit for a header and a log line, else a new one."""
    return given if given is not None and _ID.fullmatch(given) else uuid.uuid4().hex


def configure(stream: TextIO | None = None) -> None:
    """Send all log lines of this process to `stream` (standard error)."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Words() if stream.isatty() else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)
    # It names bytes of bodies that it cannot read.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class JsonLines(logging.Formatter):
    """A record as one JSON object; of an exception its kind and place."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if problem := _problem(record):
            line["problem"] = problem
        return json.dumps(line, ensure_ascii=False)


class _Words(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values = [f"{name}={_plain(getattr(record, name))}" for name in _FIELDS if hasattr(record, name)]
        problem = _problem(record)
        return " ".join([f"ddpm serve: {record.getMessage()}", *values, *([problem] if problem else [])])


def _plain(value: object) -> str:
    """A value without control characters: a path may hold some, and a terminal would obey them."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _problem(record: logging.LogRecord) -> str | None:
    """The kind of an exception and where it was raised; its message may hold a piece of a picture."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    return f"{type(error).__name__} at {places}"
