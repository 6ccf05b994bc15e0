"""The settings, and what is asked of the service by them."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.ddpm_service.page.hands import make, upload
from tests.ddpm_service.page.service import Service, model

UPLOADED = {"mode": "auto", "num_images": 5, "align": "auto", "face": None, "seed": -1, "resemblance": None}


class TestWish:
    def test_a_selfie_asks_for_all_defaults(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        make(page)
        asked = service.generations[0]
        assert {name: getattr(asked, name) for name in UPLOADED} == UPLOADED
        assert asked.preview_every == 1
        assert asked.return_target

    def test_without_a_photo_faces_are_imagined(self, page: Page, service: Service) -> None:
        expect(page.get_by_role("slider", name="Resemblance")).to_be_disabled()
        page.get_by_role("button", name="Imagine 5 faces").click()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert service.generations[0].image is None
        expect(page.locator(".you")).to_be_hidden()

    def test_resemblance_is_one_slider_with_named_stops(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        slider = page.get_by_role("slider", name="Resemblance")
        expect(slider).to_have_attribute("aria-valuetext", "automatic")
        page.get_by_role("button", name="Faithful").click()
        expect(slider).to_have_attribute("aria-valuetext", "Faithful")
        make(page)
        slider.press("ArrowLeft")
        make(page, None)
        expect(page.locator(".earlier")).to_have_count(1)
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        page.get_by_label("Automatic").check()
        make(page, None)
        expect(page.locator(".earlier")).to_have_count(2)
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        said = [(str(request.mode), request.resemblance) for request in service.generations]
        assert said == [("faithful", None), ("auto", 0.7), ("auto", None)]

    def test_numbers_and_the_folded_settings(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        page.get_by_role("button", name="One face fewer").click()
        page.get_by_role("button", name="Roll a seed").click()
        page.get_by_text("Steps and sampler").click()
        page.get_by_label("Steps", exact=True).fill("9")
        page.get_by_label("Sampler").select_option(label="DDIM")
        page.get_by_label("Noise added back").fill("0.5")
        page.get_by_label("Keep the best of").fill("6")
        page.get_by_role("button", name="Make 4 faces").click()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        asked = service.generations[0]
        assert (asked.num_images, asked.num_inference_steps, asked.best_of) == (4, 9, 6)
        assert (asked.sampler, asked.eta) == ("ddim", 0.5)
        assert str(asked.seed) == page.get_by_label("Seed", exact=True).input_value()

    def test_pixel_guidance_takes_the_place_of_the_slider(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        page.get_by_text("Steps and sampler").click()
        page.get_by_label("Guided by").select_option(label="Pixel loss")
        page.get_by_label("Strength of the pull").fill("80")
        expect(page.get_by_role("slider", name="Resemblance")).to_be_disabled()
        make(page)
        assert (service.generations[0].mode, service.generations[0].guidance_loss_scale) == ("pixel", 80)

    def test_a_number_out_of_range_is_not_sent(self, page: Page, service: Service) -> None:
        page.get_by_label("Faces", exact=True).fill("17")
        page.locator("#generate").click()
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("from 1 to 16")
        expect(page.get_by_label("Faces", exact=True)).to_be_focused()
        assert service.requests == []

    def test_models_and_versions_are_the_services(self, page: Page, service: Service) -> None:
        service.models = [model("faces-64", "1.0", "2.0"), model("cats", "1")]
        service.models[0]["versions"].append(
            {**service.models[0]["versions"][0], "version": "3.0", "ready": False, "reason": "Its weights are damaged."}
        )
        page.reload()
        chooser = page.get_by_label("Model", exact=True)
        expect(chooser.locator("option")).to_have_text(
            ["faces-64 1.0 · 64 px", "faces-64 2.0 · 64 px", "faces-64 3.0 · 64 px · not ready", "cats 1 · 64 px"]
        )
        expect(page.locator("#model-hint")).to_have_text("faces-64 3.0: Its weights are damaged.")
        make(page)
        chooser.select_option("faces-64/2.0")
        make(page, None)
        expect(page.locator(".earlier")).to_have_count(1)
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert service.paths == ["/predictions/faces-64", "/predictions/faces-64/2.0"]
