"""API tokens: read from a file, compared in constant time, read again when the file changes."""

from __future__ import annotations

import hashlib
import hmac
import time
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

from ddpm_api import ApiError, Error
from ddpm_service.errors import ServiceError

_LOOK_SECONDS = 1.0
_SHORTEST = 16
ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: of his token; anonymous where none is asked for.
        address: from where he asks, if that is not this machine.
    """

    name: str
    address: str | None = None

    @property
    def known(self) -> bool:
        """Whether a token was checked."""
        return self.name != ANONYMOUS

    @property
    def shared(self) -> str | None:
        """By what his shares are counted; None for who has none: this machine's own users, without tokens."""
        return self.name if self.known else self.address


NOBODY = Caller(ANONYMOUS)
asking: ContextVar[Caller] = ContextVar("asking", default=NOBODY)
"""Who asks, in the task of a request that was let in."""


def anonymous(host: str | None) -> Caller:
    """Whoever asks from an IP address where no token is asked for; a network of IPv6 is one caller."""
    with suppress(ValueError):
        address = ip_address((host or "").partition("%")[0])
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if not address.is_loopback:
            wide = isinstance(address, IPv6Address)
            return Caller(ANONYMOUS, str(ip_network(f"{address}/64", strict=False)) if wide else str(address))
    return NOBODY


class Tokens:
    """The tokens of a file: one a line, a name before it if wanted (`alice 3q2-7w…`), `#` begins a comment.

    Without a name a token is called by the first digits of its hash. A changed file holds within a second; while it
    is wrong or gone the former tokens hold.

    Args:
        file: the file, such as a mounted secret.

    Raises:
        ServiceError: it cannot be read, names no token, or a token is too short or called `anonymous`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._text: str | None = None
        self._names: dict[bytes, str] = {}
        self._looked = time.monotonic()
        self._read()

    def caller(self, authorization: str | None) -> Caller:
        """Who sent this `Authorization` header.

        Raises:
            ApiError: there is no bearer token, or not one of ours (`unauthorized`).
        """
        self._look()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            digest = hashlib.sha256(token.strip().encode()).digest()
            # All are compared, so that the time that it takes tells nothing about the tokens.
            matches = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
            if matches:
                return Caller(matches[0])
            raise ApiError(Error(code="unauthorized", message="The API token is not valid."))
        message = "An API token is needed: send the header Authorization: Bearer <token>."
        raise ApiError(Error(code="unauthorized", message=message))

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            self._read()
        except ServiceError:
            return

    def _read(self) -> None:
        try:
            text = self._file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"the tokens in {self._file} cannot be read: {type(error).__name__}") from error
        if text == self._text:
            return
        names: dict[bytes, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) > 2 or len(words[-1]) < _SHORTEST:
                raise ServiceError(
                    f"{self._file}, line {number}: a token has {_SHORTEST} characters or more, no blanks"
                )
            if words[0] == ANONYMOUS:
                raise ServiceError(f"{self._file}, line {number}: {ANONYMOUS} is who needs no token; take another name")
            digest = hashlib.sha256(words[-1].encode()).digest()
            names[digest] = words[0] if len(words) == 2 else digest.hex()[:8]
        if not names:
            raise ServiceError(f"{self._file} holds no token")
        self._text, self._names = text, names


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def may_listen(host: str, *, tokens: bool, insecure: bool) -> None:
    """Refuse to be reached from elsewhere without tokens.

    Raises:
        ServiceError: `host` is not loopback, and neither tokens nor the explicit wish to do without are there.
    """
    if not (is_loopback(host) or tokens or insecure):
        raise ServiceError(
            f"listening on {host} needs API tokens (--tokens or DDPM_TOKENS, a file), or --insecure to do without"
        )
