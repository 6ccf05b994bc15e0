"""The client that waits, on `requests`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ddpm_api import Event, ImageLike, Result, ResultBuilder
from ddpm_service.client import protocol
from ddpm_service.client.protocol import DEFAULT_MODEL, Ask, Events, Unreachable


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
            total=protocol.RETRIES,
            connect=protocol.CONNECT_RETRIES,
            read=False,
            other=False,
            allowed_methods={"POST"},
            backoff_factor=protocol.BACKOFF_SECONDS,
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
        ask = Ask.of(self.url, image, model, version, fields)
        with self._post(ask) as response:
            if not protocol.is_stream(response.status_code, response.headers):
                raise protocol.refusal(ask, response.status_code, response.reason, response.headers, response.content)
            events = Events(ask)
            with suppress(requests.RequestException):  # a broken connection ends the answer
                for some in response.iter_content(chunk_size=None):
                    yield from events.feed(some)
            events.close()

    def _post(self, ask: Ask) -> requests.Response:
        body: dict[str, Any] = {"json": ask.fields}
        if ask.picture is not None:
            # a constant name: the file's own is nobody's business
            body = {"files": {"image": ("image", ask.picture, "application/octet-stream")}, "data": ask.texts}
        try:
            return self._session.post(
                ask.url,
                **body,
                headers=protocol.HEADERS,
                timeout=(protocol.CONNECT_SECONDS, protocol.SILENCE_SECONDS),
                stream=True,
                allow_redirects=False,
            )
        except requests.Timeout:
            why = protocol.TIMED_OUT
        except requests.ConnectionError:
            why = protocol.NOT_REACHED
        except (requests.RequestException, ValueError):
            why = protocol.NO_ADDRESS
        raise Unreachable(ask.url, why)


def _bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign
