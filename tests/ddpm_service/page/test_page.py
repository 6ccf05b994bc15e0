"""The page as a whole: its size, its first sight, its widths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ddpm_api import Error
from ddpm_service.page import FILES
from tests.ddpm_service.page.hands import make, upload
from tests.ddpm_service.page.service import Service, model


def test_the_whole_page_is_at_most_100_kb() -> None:
    assert sum(file.stat().st_size for file in FILES.iterdir()) <= 100_000


class TestFirstSight:
    def test_everything_is_there_before_the_service_has_answered(
        self, context: BrowserContext, service: Service
    ) -> None:
        page = context.new_page()
        page.route(re.compile("readyz|v1"), lambda route: None)
        page.goto(service.url)
        expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
        expect(page.get_by_role("button", name="Imagine 5 faces")).to_be_visible()
        expect(page.get_by_text("The picture is not stored.")).to_be_visible()
        expect(page.locator("#state")).to_have_text("Connecting")

    def test_the_state_is_the_services_own(self, page: Page, service: Service) -> None:
        expect(page.locator("#state")).to_have_text("Ready")
        service.ready = False
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.locator("#state")).to_have_text("Starting: faces-64 1.0 is loading")
        service.stop()
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.locator("#state")).to_have_text("Unreachable")

    def test_every_control_has_a_name(self, page: Page, photo: Path) -> None:
        upload(page, photo)
        make(page)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input:not(.away), select, [tabindex='0']")]
            .filter(e => !(e.innerText || e.ariaLabel || e.labels?.length || e.getAttribute("aria-label")))
            .map(e => e.outerHTML)"""
        )
        assert nameless == []


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1920])
def test_nothing_is_wider_than_the_screen(browser: Browser, service: Service, photo: Path, width: int) -> None:
    service.faces, service.warning = 2, "A long word: " + "x" * 120
    service.models = [model("a-model-with-a-very-long-name-indeed-as-some-have", "2026.10.31-rc1")]
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme="dark") as context:
        page = context.new_page()
        page.goto(service.url)
        upload(page, photo)
        make(page)
        service.refuse = Error(code="other", message="y" * 200, field="z", allowed="w" * 200)
        make(page, "failed")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#generate").is_visible()
