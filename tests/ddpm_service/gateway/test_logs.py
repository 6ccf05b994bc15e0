"""Log lines: JSON in a pipe, words on a terminal, and never what an exception says."""

from __future__ import annotations

import io
import json
import logging

import pytest

from ddpm_service.gateway.logs import configure, log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    before = root.handlers[:], root.level, log.level
    yield
    root.handlers[:], level, own = before
    root.setLevel(level)
    log.setLevel(own)


def test_json_lines_with_their_fields():
    stream = io.StringIO()
    configure(stream)
    log.info("request", extra={"request_id": "r1", "status": 200, "secret": "x"})
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["request_id"], line["status"]) == ("request", "info", "r1", 200)
    assert "secret" not in line


def test_a_terminal_gets_no_control_characters_of_a_path():
    stream = Terminal()
    configure(stream)
    log.info("request", extra={"path": "/\x1b]0;x\x07\nddpm serve: stopping"})
    assert stream.getvalue() == "ddpm serve: request path='/\\x1b]0;x\\x07\\nddpm serve: stopping'\n"


def test_words_on_a_terminal():
    stream = Terminal()
    configure(stream)
    log.info("ready: %s", "faces", extra={"seconds": 1.5})
    assert stream.getvalue() == "ddpm serve: ready: faces seconds=1.5\n"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_an_exception_is_told_by_its_kind_and_place_not_by_its_words(kind):
    stream = kind()
    configure(stream)
    try:
        raise ValueError("a piece of a picture")
    except ValueError:
        log.exception("a request failed")
    assert "ValueError at test_logs.py:" in stream.getvalue()
    assert "picture" not in stream.getvalue()
