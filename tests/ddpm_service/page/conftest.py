"""The page in a real browser, before the scripted service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.ddpm_service.page.service import Service, file_of, portrait


@pytest.fixture
def service() -> Iterator[Service]:
    scripted = Service()
    scripted.start()
    yield scripted
    if not scripted.down:
        scripted.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    opened.set_default_timeout(10_000)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, service: Service) -> Iterator[Page]:
    """The page, open and ready. Nothing may go wrong in it, and nothing may leave the service's address."""
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    opened.on("request", lambda request: wrong.append(request.url) if not _own(request.url, service) else None)
    opened.goto(service.url)
    yield opened
    assert wrong == []


def _own(url: str, service: Service) -> bool:
    return url.startswith((service.url, "blob:" + service.url, "data:"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "selfie.jpg"
    file.write_bytes(file_of(portrait(), "JPEG"))
    return file
