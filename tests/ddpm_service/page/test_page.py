"""The page as a whole: its size, its first sight, its widths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ddpm_api import Error
from ddpm_service.page import FILES
from tests.ddpm_service.page.hands import make, upload
from tests.ddpm_service.page.service import Service, model


def test_the_whole_page_is_at_most_100_kib() -> None:
    """Two seconds on a slow line of 3G (0.4 Mbit/s); the files are sent as they stand."""
    assert sum(file.stat().st_size for file in FILES.iterdir()) <= 100 * 1024


class TestFirstSight:
    def test_everything_is_there_before_the_service_has_answered(
        self, context: BrowserContext, service: Service
    ) -> None:
        page = context.new_page()
        page.route(re.compile("readyz|v1"), lambda route: None)
        page.goto(service.url)
        expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
        expect(page.get_by_role("button", name="Imagine faces")).to_be_visible()
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
            """() => [...document.querySelectorAll("button, input:not([hidden]), select, [tabindex='0']")]
            .filter(e => !(e.innerText || e.ariaLabel || e.labels?.length || e.getAttribute("aria-label")))
            .map(e => e.outerHTML)"""
        )
        assert nameless == []


@contextmanager
def all_settings(browser: Browser, service: Service, photo: Path, width: int, height: int) -> Iterator[Page]:
    """The page with a photograph of two people and its folded settings opened, all that the form can hold."""
    service.faces = 2
    with browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(service.url)
        upload(page, photo)
        page.get_by_text("Steps and sampler").click()
        yield page


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (640, 450), (390, 844), (320, 640)])
def test_nothing_that_has_the_focus_is_covered(
    browser: Browser, service: Service, photo: Path, width: int, height: int
) -> None:
    with all_settings(browser, service, photo, width, height) as page:
        page.get_by_label("Guided by").select_option(label="Pixel loss")
        for key, first, last in (("Tab", ".skip", "generate"), ("Shift+Tab", "#generate", "choose-other")):
            page.locator(first).focus()
            covered = []
            for _ in range(40):
                page.keyboard.press(key)
                name, is_seen = page.evaluate(_SEEN)
                if not is_seen:
                    covered.append(name)
                if name == last:
                    break
            assert (name, covered) == (last, [])


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_button_that_gives_the_frame_back_moves_no_other(
    browser: Browser, service: Service, photo: Path, width: int
) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto(service.url)
        upload(page, photo)
        expect(page.locator("#photo-note")).to_contain_text("Found the face")
        before = page.locator("#photo-remove").bounding_box()
        page.locator(".crop").press("ArrowRight")
        expect(page.get_by_role("button", name="Reset the frame")).to_be_visible()
        assert page.locator("#photo-remove").bounding_box() == before


def test_on_a_small_screen_a_face_opens_at_its_top_with_the_focus_on_it(browser: Browser, service: Service) -> None:
    with browser.new_context(viewport={"width": 640, "height": 450}) as context:  # 1280 × 900 at 200 %
        page = context.new_page()
        page.goto(service.url)
        make(page)
        page.get_by_role("button", name="Face 2, AI-generated").press("Enter")
        viewer = page.get_by_role("dialog", name="One face, enlarged")
        expect(viewer.get_by_label("Face 2, AI-generated")).to_be_focused()
        expect(viewer).to_have_js_property("scrollTop", 0)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (320, 640)])
def test_what_is_wrong_with_a_field_is_not_covered_either(
    browser: Browser, service: Service, photo: Path, width: int, height: int
) -> None:
    with all_settings(browser, service, photo, width, height) as page:
        page.get_by_label("Sampler").select_option(label="DDIM")
        page.get_by_label("Keep the best of").press_sequentially("99")
        alert = page.get_by_role("alert").filter(visible=True)
        expect(alert).to_have_text("A whole number from 5 to 16")
        assert alert.evaluate(_ON_TOP)


_ON_TOP = """line => {
    const { x, y, height } = line.getBoundingClientRect();
    return line === document.elementFromPoint(x + 4, y + 0.8 * height);
}"""


# Whether the middle and the lower edge of what has the focus are on top there, where the page has come to.
_SEEN = """() => {
    const focused = document.activeElement, { x, y, width, height } = focused.getBoundingClientRect();
    const own = focused.closest("label, .frame, a, button, .field, summary") ?? focused;
    const at = (part) => own.contains(document.elementFromPoint(x + width / 2, y + part * height));
    return [focused.id || focused.textContent.trim().slice(0, 20), at(0.5) && at(0.9)];
}"""


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
