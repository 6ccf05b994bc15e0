"""What a user does."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect


def upload(page: Page, photo: Path) -> None:
    page.set_input_files("#file", photo)
    expect(page.locator(".crop")).to_be_visible()


def make(page: Page, phase: str | None = "done") -> None:
    page.locator("#generate").click()
    if phase:
        expect(page.locator("#stage")).to_have_attribute("data-phase", phase)


def finished(page: Page) -> int:
    return page.locator('.tile[data-state="done"]').count()
