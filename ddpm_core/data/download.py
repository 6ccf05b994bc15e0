"""Fetching a list of picture addresses into a folder; what is there already is not fetched again."""

from __future__ import annotations

import codecs
import hashlib
import string
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request

from ddpm_core.data.bounds import MAX_BYTES, check_count
from ddpm_core.data.reach import NotPublic, Reach

_AT_ONCE, _TRIES, _PAUSE, _TIMEOUT = 8, 3, 0.5, 30
# One picture, all tries together, takes at most so many times as long as one silence of its server may last.
_PATIENCE = 4


def read_addresses(source: Path) -> list[str] | None:
    """Give the addresses of a list of them, one a line, each once; None when the file is no such list."""
    if not source.is_file():
        return None
    with source.open("rb") as file:
        if not file.read(16).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"http"):
            return None
    lines = (line.strip() for line in source.read_text(encoding="utf-8-sig", errors="backslashreplace").splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def download(
    addresses: Sequence[str], folder: Path, progress: Callable[[int, int], None], *, allow_private: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Fetch addresses into a folder; run again, it goes on where it stopped.

    Args:
        addresses: http or https.
        folder: where the files go, named by a hash of their address; made.
        progress: called with how many are done, and of how many.
        allow_private: fetch from addresses that are not on the public internet too.

    Returns:
        The file name of each address that was fetched, and the reason for each that was not.

    Raises:
        OSError: there are too many.
    """
    check_count(len(addresses))
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    failures: dict[str, str] = {}

    def one(address: str) -> tuple[str, str, str]:
        file = folder / hashlib.sha256(address.encode()).hexdigest()[:24]
        return address, file.name, "" if file.exists() else _fetch(address, file, allow_private)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, (address, name, failure) in enumerate(pool.map(one, addresses), 1):
            if failure:
                failures[address] = failure
            else:
                files[address] = name
            progress(done, len(addresses))
    return files, failures


def _fetch(address: str, file: Path, allow_private: bool) -> str:
    """Fetch one file, whole or not at all; give the reason where it failed, else nothing."""
    if not address.lower().startswith(("http://", "https://")):
        return "not an http or https address"
    with Reach(_PATIENCE * _TIMEOUT, allow_private=allow_private) as reach:
        reason = _tried(address, file, reach)
        return f"took longer than {_PATIENCE * _TIMEOUT:g} seconds" if reason and reach.over else reason


def _tried(address: str, file: Path, reach: Reach) -> str:
    reason = ""
    for attempt in range(_TRIES):
        if reach.over:
            break
        if attempt:
            time.sleep(_PAUSE * 2**attempt)
        try:
            request = Request(_in_ascii(address), headers={"User-Agent": "ddpm-prepare"})
            with reach.open(request, _TIMEOUT) as answer:
                data, length = answer.read(MAX_BYTES + 1), answer.headers.get("Content-Length")
        except HTTPError as error:
            reason = f"the server answered {error.code}"
            if error.code < 500 and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                return reason
        except (OSError, HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            reason = f"could not be fetched: {cause}"
            if isinstance(cause, NotPublic):
                return reason
        else:
            if len(data) > MAX_BYTES:
                return f"larger than {MAX_BYTES // 2**20} MiB"
            if length is None or len(data) == int(length):
                aside = file.with_suffix(".part")
                aside.write_bytes(data)
                aside.replace(file)
                return ""
            reason = "the connection broke"
    return reason


def _in_ascii(address: str) -> str:
    """Give an address as it is asked for: letters beyond ASCII encoded, in the host as in DNS; ValueError if none."""
    parts = urlsplit(address)
    host = parts.netloc.encode("idna").decode("ascii")
    return quote(parts._replace(netloc=host).geturl(), safe=string.punctuation)
