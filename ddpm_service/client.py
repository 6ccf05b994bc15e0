"""The Python client: a request in, its events or its result out, over plain HTTP.

It speaks to the front door and to TorchServe's own inference port alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ddpm_api import (
    ApiError,
    EndEvent,
    Error,
    ErrorBody,
    ErrorEvent,
    Event,
    ImageLike,
    Result,
    ResultBuilder,
    file_of,
    parse_event,
)
from ddpm_service.errors import ServiceError

DEFAULT_MODEL = "faces-64"
NDJSON = "application/x-ndjson"

_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 120.0  # the front door sends a heartbeat at least every 15
_CODES = {
    400: "malformed_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    503: "unavailable",
    504: "timeout",
}


class RequestFailed(ApiError, ServiceError):
    """The service refused the request or failed at it; `error` is its answer, `status` the HTTP status."""


class Unreachable(ServiceError):
    """Nothing that speaks this protocol answers.

    Attributes:
        url: where it was looked for.
    """

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url} {why}")
        self.url = url


class _SafeRetry(Retry):
    """Again only where nothing has been done: no connection was made, or 503 came with `Retry-After`."""

    RETRY_AFTER_STATUS_CODES = frozenset({503})


class Client:
    """A service, and the right to use it. A context manager; not to be shared among threads.

    Args:
        url: such as `http://127.0.0.1:8000`.
        token: the API token, where the service wants one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        if token is not None:
            self._session.auth = _bearer(token)
        retry = _SafeRetry(
            total=3,
            connect=2,
            read=False,
            other=False,
            allowed_methods={"POST"},
            backoff_factor=0.1,
            raise_on_status=False,
        )
        self._session.mount("http://", HTTPAdapter(max_retries=retry))
        self._session.mount("https://", HTTPAdapter(max_retries=retry))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; what still runs on one is given up by the service."""
        self._session.close()

    def generate(
        self,
        image: ImageLike | None = None,
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        **fields: Any,
    ) -> Result:
        """Make faces and wait for all of them.

        Args:
            image: the selfie: a path, bytes, an open file, a PIL picture or an array; None for faces from noise alone.
            model: the model's name.
            version: one of its versions; the default one if None.
            fields: the request's other fields, such as `num_images=3, seed=7`; None counts as not given.

        Raises:
            RequestFailed: the service refused or failed, or its answer broke off (code `unfinished`).
            Unreachable: no service answers at the address.
            OSError: the picture's file cannot be read.
        """
        builder = ResultBuilder()
        for event in self.stream(image, model=model, version=version, **fields):
            builder.feed(event)
        return builder.result()

    def stream(
        self,
        image: ImageLike | None = None,
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        **fields: Any,
    ) -> Generator[Event, None, None]:
        """Make faces and hear of each event as it happens; the last one is `end`.

        Leaving the loop, or closing the iterator, closes the connection, and the service stops working on it.
        Arguments and errors are those of `generate`; an `error` event is raised.
        """
        path = "/".join(quote(part, safe="") for part in ("predictions", model, version) if part is not None)
        url = f"{self.url}/{path}"
        with self._post(url, image, fields) as response:
            if response.status_code != 200:
                raise RequestFailed(_refusal(response))
            if not response.headers.get("Content-Type", "").startswith(NDJSON):
                raise Unreachable(url, "is not this service: its answer is no stream of events")
            ended = False
            for event in _events(response):  # to its last byte, so that the connection can serve again
                if isinstance(event, ErrorEvent):
                    raise RequestFailed(event.error)
                ended = isinstance(event, EndEvent)
                yield event
        if not ended:
            raise RequestFailed(Error(code="unfinished", message=f"The answer of {url} broke off before its end."))

    def _post(self, url: str, image: ImageLike | None, fields: dict[str, Any]) -> requests.Response:
        given = {name: value for name, value in fields.items() if value is not None}
        body: dict[str, Any] = {"json": given}
        if image is not None:
            # a constant name: the file's own is nobody's business
            body = {
                "files": {"image": ("image", file_of(image), "application/octet-stream")},
                "data": {name: _text(value) for name, value in given.items()},
            }
        try:
            return self._session.post(
                url,
                **body,
                headers={"Accept": NDJSON},
                timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
                stream=True,
                allow_redirects=False,
            )
        except requests.Timeout:
            why = "does not answer in time"
        except requests.ConnectionError:
            why = "cannot be reached, or closes the connection; is the service running there?"
        except (requests.RequestException, ValueError):
            why = "is no address that can be asked"
        raise Unreachable(url, why)


def _bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _events(response: requests.Response) -> Iterator[Event]:
    """The events that arrive whole; a line that was cut, or a broken connection, ends them."""
    try:
        for line in response.iter_lines(chunk_size=None):
            if line.strip():
                yield parse_event(line)
    except (requests.RequestException, ValueError):
        return


def _refusal(response: requests.Response) -> Error:
    """The answer's error: in our shape, in TorchServe's ({"code", "type", "message"}), or told by the status alone."""
    try:
        document = response.json()
    except requests.RequestException:
        document = None
    after = response.headers.get("Retry-After", "")
    retry_after = int(after) if after.isascii() and after.isdigit() else None
    try:
        return ErrorBody.model_validate(document).error.model_copy(update={"retry_after": retry_after})
    except ValidationError:
        said = document.get("message") if isinstance(document, dict) else None
    message = said if isinstance(said, str) else f"{response.url} answered {response.status_code} {response.reason}."
    return Error(code=_CODES.get(response.status_code, "internal"), message=message, retry_after=retry_after)
