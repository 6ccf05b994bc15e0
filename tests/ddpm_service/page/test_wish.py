"""The settings, and what is asked of the service by them."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from ddpm_api import Error
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

    def test_a_number_out_of_range_is_told_at_its_field_while_typing_and_not_sent(
        self, page: Page, service: Service
    ) -> None:
        faces = page.get_by_label("Faces", exact=True)
        faces.fill("17")
        alert = page.get_by_role("alert").filter(visible=True)
        expect(alert).to_have_text("A whole number from 1 to 16")
        expect(faces).to_have_accessible_description("A whole number from 1 to 16")
        page.locator("#generate").click()
        expect(faces).to_be_focused()
        assert service.requests == []
        faces.fill("16")
        expect(alert).to_have_count(0)

    def test_the_most_steps_are_the_plans_and_known_before_anything_is_sent(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        page.get_by_text("Steps and sampler").click()
        page.get_by_label("Steps", exact=True).fill("1001")
        alert = page.get_by_role("alert").filter(visible=True)
        expect(alert).to_have_text("A whole number from 1 to 1000")
        upload(page, photo)
        expect(alert).to_have_text("A whole number from 1 to 821")
        page.get_by_role("button", name="Likeness").click()
        expect(alert).to_have_text("A whole number from 1 to 702")
        page.get_by_label("Guided by").select_option(label="Pixel loss")
        expect(alert).to_have_text("A whole number from 1 to 1000")
        assert service.generations == []

    def test_a_photo_without_a_face_has_the_steps_of_the_plan_that_will_be_chosen(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        service.faces = 0
        upload(page, photo)
        page.get_by_text("Steps and sampler").click()
        page.get_by_label("Steps", exact=True).fill("951")
        expect(page.get_by_role("alert").filter(visible=True)).to_have_text("A whole number from 1 to 950")
        expect(page.get_by_label("Resemblance")).to_have_value("0")

    def test_what_the_service_refuses_of_a_field_is_told_there_with_its_limit(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        del service.models[0]["versions"][0]["most_calls"]  # an archive that does not tell
        page.reload()
        upload(page, photo)
        page.get_by_text("Steps and sampler").click()
        steps = page.get_by_label("Steps", exact=True)
        steps.fill("900")
        service.refuse = Error(
            code="out_of_range", message="Too many.", field="num_inference_steps", given=900, allowed="1..821"
        )
        make(page, "failed")
        expect(page.get_by_role("alert").filter(visible=True)).to_have_text("A whole number from 1 to 821")
        expect(steps).to_be_focused()
        page.get_by_role("button", name="Celebrity").click()  # another plan, whose limit is not known yet
        expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)

    def test_at_the_sliders_end_the_photo_itself_is_made_once(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        page.get_by_role("slider", name="Resemblance").fill("100")
        expect(page.locator("#likeness-hint")).to_contain_text("The photograph itself")
        page.get_by_role("button", name="Make 1 face").click()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        expect(page.locator(".meta").first).to_contain_text("The photo itself · 100 %")
        assert (service.generations[0].num_images, service.generations[0].resemblance) == (1, 1.0)

    def test_the_sliders_other_end_is_headed_by_what_it_was(self, page: Page, photo: Path) -> None:
        upload(page, photo)
        page.get_by_role("slider", name="Resemblance").fill("0")
        make(page)
        expect(page.locator(".meta").first).to_contain_text("Hardly like you · 0 %")

    def test_what_was_chosen_for_a_photo_without_a_face_shows_on_the_slider(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        service.faces, service.chosen = 0, 0.0
        upload(page, photo)
        make(page)
        expect(page.get_by_role("slider", name="Resemblance")).to_have_value("0")
        expect(page.get_by_label("Automatic")).to_be_checked()

    def test_where_it_is_quick_the_better_half_of_twice_as_many_is_kept(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        service.seconds = 0.5
        upload(page, photo)
        for _ in range(2):
            make(page)
        page.get_by_label("Seed", exact=True).fill("7")  # a seed that is asked for keeps its faces
        make(page)
        assert [request.best_of for request in service.generations] == [10, 10, 5]

    def test_where_twice_as_many_took_long_the_next_are_as_many_as_asked_for(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        service.seconds = 60
        upload(page, photo)
        for _ in range(2):
            make(page)
        assert [request.best_of for request in service.generations] == [10, 5]

    def test_steps_that_are_set_are_taken_for_no_more_faces_than_asked_for(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        upload(page, photo)
        page.get_by_text("Steps and sampler").click()
        page.get_by_label("Steps", exact=True).fill("9")
        make(page)
        assert [request.best_of for request in service.generations] == [5]

    def test_a_large_model_is_tried_before_twice_as_many_are_asked_of_it(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        service.models = [model("faces-64", "1.0")]
        service.models[0]["versions"][0]["image_size"] = 256
        service.seconds = 0.5
        page.reload()
        upload(page, photo)
        for _ in range(2):
            make(page)
        assert [request.best_of for request in service.generations] == [5, 10]

    def test_models_and_versions_are_the_services(self, page: Page, service: Service) -> None:
        service.models = [model("faces-64", "1.0", "2.1"), model("cats", "1")]
        service.models[0]["versions"].append(
            {**service.models[0]["versions"][0], "version": "3.0", "ready": False, "reason": "Its weights are damaged."}
        )
        page.reload()
        chooser = page.get_by_label("Model", exact=True)
        expect(chooser.locator("option")).to_have_text(
            ["faces-64 1.0 · 64 px", "faces-64 2.1 · 64 px", "faces-64 3.0 · 64 px · not ready", "cats 1 · 64 px"]
        )
        expect(page.locator("#model-hint")).to_have_text("faces-64 3.0: Its weights are damaged.")
        make(page)
        chooser.select_option("faces-64/2.1")
        make(page, None)
        expect(page.locator(".earlier")).to_have_count(1)
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert service.paths == ["/predictions/faces-64", "/predictions/faces-64/2.1"]
