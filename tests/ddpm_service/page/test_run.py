"""A run of the model as it is seen: under way, in trouble, and its results."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from ddpm_api import Error
from tests.ddpm_service.page.hands import finished, make, upload
from tests.ddpm_service.page.service import STEPS, Service, generated, made, portrait


class TestProgress:
    def test_all_faces_form_under_one_bar(self, page: Page, service: Service, photo: Path) -> None:
        service.wait_at = 5
        upload(page, photo)
        make(page, "running")
        expect(page.locator('.tile[data-state="forming"]')).to_have_count(5)
        expect(page.locator(".progress-words")).to_have_text("Step 4 of 8 · 2 s left")
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
        expect(page.locator("#live")).to_have_text("50 percent")
        expect(page).to_have_title(re.compile("^50 %"))
        service.go.set()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert finished(page) == 5
        expect(page.locator(".you")).to_be_visible()
        expect(page.locator("#stage .ai")).to_have_text("AI-generated")
        expect(page.locator(".under .hint")).to_have_text("64 × 64 px, smoothly enlarged")
        expect(page.locator("#live")).to_have_text("5 faces in 3 s")

    def test_a_picture_is_shown_as_soon_as_it_is_finished(self, page: Page, service: Service) -> None:
        service.wait_at = STEPS
        make(page, "running")
        expect(page.locator('.tile[data-state="done"]')).to_have_count(2)

    def test_the_place_in_the_queue_is_told(self, page: Page, service: Service) -> None:
        service.queue, service.step_seconds = 3, 1.5  # longer than the pause between two looks
        make(page, "queued")
        expect(page.locator(".progress-words")).to_have_text("Waiting: 2 before you")
        expect(page.locator(".progress-words")).to_have_text("Waiting: you are next")

    def test_a_warning_is_shown(self, page: Page, service: Service) -> None:
        service.warning = "The light is poor."
        make(page)
        expect(page.locator(".notes")).to_have_text("The light is poor.")

    def test_cancel_hangs_up(self, page: Page, service: Service) -> None:
        service.wait_at = STEPS
        make(page, "running")
        expect(page.locator('.tile[data-state="done"]')).to_have_count(2)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "cancelled")
        expect(page.locator(".progress-words")).to_have_text("Stopped after 2 faces")
        assert service.left.wait(30)
        expect(page.locator("#generate")).to_be_visible()


class TestTrouble:
    def test_an_error_is_told_dismissed_and_tried_again(self, page: Page, service: Service) -> None:
        service.fail_at = 3
        make(page, "failed")
        alert = page.get_by_role("alert").filter(visible=True)
        expect(alert).to_contain_text("The service ran out of memory")
        page.get_by_role("button", name="Dismiss").click()
        expect(alert).to_have_count(0)
        service.fail_at = None
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert service.generations[1].seed == 4711

    def test_a_full_service_says_when_there_is_room(self, page: Page, service: Service) -> None:
        service.refuse = Error(code="busy", message="The queue is full.", retry_after=20)
        make(page, "failed")
        alert = page.get_by_role("alert").filter(visible=True)
        expect(alert).to_contain_text("Many people are waiting right now")
        expect(alert).to_contain_text("in 20 s")

    def test_a_cut_stream_is_sent_again_with_the_reported_seed(self, page: Page, service: Service, photo: Path) -> None:
        service.cut_at = STEPS
        upload(page, photo)
        make(page)
        assert finished(page) == 5
        first, second = service.generations
        assert (first.seed, second.seed) == (-1, 4711)
        assert first.image == second.image
        assert service.paths[-1] == "/predictions/faces-64/1.0"

    def test_offline_and_back(self, page: Page, service: Service, photo: Path) -> None:
        service.wait_at = STEPS
        upload(page, photo)
        make(page, "running")
        expect(page.locator('.tile[data-state="done"]')).to_have_count(2)
        kept = page.locator(".tile img").nth(0).get_attribute("src")
        service.stop()
        expect(page.locator("#state")).to_have_text("Unreachable")
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("what has arrived are kept.")
        assert finished(page) == 2
        service.wait_at = None
        service.start()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert finished(page) == 5
        assert page.locator(".tile img").nth(0).get_attribute("src") == kept
        expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)

    def test_a_stopped_service_says_one_thing_once(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        service.stop()
        for _ in range(2):
            make(page, "failed")
            expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("The service cannot be reached")
            expect(page.locator("#state")).to_have_text("Unreachable")
        expect(page.locator("#photo-note")).to_contain_text("Found the face")
        expect(page.locator(".notes")).to_be_empty()

    def test_a_token_is_asked_for_and_a_wrong_one_refused(self, page: Page, service: Service, photo: Path) -> None:
        service.token = "secret"
        page.reload()
        ask = page.get_by_role("dialog", name="This service asks for a token")
        ask.get_by_label("Token").fill("wrong")
        ask.get_by_role("button", name="Continue").click()
        expect(ask.get_by_text("not accepted")).to_be_visible()
        ask.get_by_label("Token").fill("secret")
        ask.get_by_label("Token").press("Enter")
        expect(page.locator("#state")).to_have_text("Ready")
        upload(page, photo)
        make(page)
        assert service.tokens[-1] == "Bearer secret"

    def test_a_token_comes_with_the_link_and_leaves_the_address(
        self, context: BrowserContext, service: Service
    ) -> None:
        service.token = "secret"
        page = context.new_page()
        page.goto(service.url + "#token=secret")
        expect(page.locator("#state")).to_have_text("Ready")
        assert page.url == service.url

    def test_a_token_may_carry_what_a_chat_added_unseen(self, page: Page, service: Service) -> None:
        service.token = "secret"
        page.reload()
        ask = page.get_by_role("dialog", name="This service asks for a token")
        ask.get_by_label("Token").fill(" \ufeffsec\u00adret\u200b ")
        ask.get_by_label("Token").press("Enter")
        expect(page.locator("#state")).to_have_text("Ready")

    def test_what_no_token_can_be_is_told_and_asked_for_again(self, page: Page, service: Service) -> None:
        service.token = "se-cret"
        page.reload()
        ask = page.get_by_role("dialog", name="This service asks for a token")
        for wrong in ("", "se–cret"):  # a dash that a chat made of the hyphen
            ask.get_by_label("Token").fill(wrong)
            ask.get_by_role("button", name="Continue").click()
            expect(ask.get_by_role("alert")).to_contain_text("plain letters")
            expect(ask.get_by_label("Token")).to_be_focused()
        ask.get_by_label("Token").fill("se-cret")
        ask.get_by_label("Token").press("Enter")
        expect(page.locator("#state")).to_have_text("Ready")

    @pytest.mark.parametrize("refused", [False, True])
    def test_a_link_answers_the_question_of_a_page_that_is_open(
        self, page: Page, service: Service, refused: bool
    ) -> None:
        service.token = "a+b/c=100%"
        page.reload()
        ask = page.get_by_role("dialog", name="This service asks for a token")
        expect(ask).to_be_visible()
        if refused:
            ask.get_by_role("button", name="Not now").click()
            expect(page.locator("#state")).to_have_text("Not usable")
        page.goto(service.url + "#token=a+b/c=100%25")
        expect(page.locator("#state")).to_have_text("Ready")
        expect(ask).to_be_hidden()
        assert page.url == service.url

    @pytest.mark.parametrize("link", ["#token=100%", "#token=sécret", "#token="])
    def test_a_link_without_a_possible_token_is_told(self, page: Page, service: Service, link: str) -> None:
        service.token = "secret"
        ask = page.get_by_role("dialog", name="This service asks for a token")
        page.goto("about:blank")
        for _ in ("anew", "in the open page"):
            page.goto(service.url + link)
            expect(ask.get_by_role("alert")).to_contain_text("plain letters")
            assert page.url == service.url


class TestKeyboard:
    def test_the_focus_stays_on_the_button_of_the_run(self, page: Page, service: Service) -> None:
        service.wait_at = STEPS
        page.locator("#generate").press("Enter")
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        service.go.set()
        expect(page.locator("#generate")).to_be_focused()

    def test_enter_held_down_starts_one_run_and_leaves_it_alone(self, page: Page, service: Service) -> None:
        service.wait_at = STEPS
        page.locator("#generate").focus()
        page.keyboard.down("Enter")
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.down("Enter")
        page.keyboard.up("Enter")
        service.go.set()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert len(service.generations) == 1

    def test_the_focus_is_left_where_the_user_took_it(self, page: Page, service: Service) -> None:
        service.wait_at = STEPS
        make(page, "running")
        page.get_by_label("Seed", exact=True).focus()
        service.go.set()
        expect(page.locator("#generate")).to_be_visible()
        expect(page.get_by_label("Seed", exact=True)).to_be_focused()


class TestResults:
    def test_one_is_downloaded_as_it_is_seen_with_its_settings_and_its_true_size(self, page: Page) -> None:
        make(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download face 2").click()
        assert download.value.suggested_filename == "lookalike-4712.png"
        with Image.open(download.value.path()) as face:
            assert (face.size, face.info["true_size"]) == ((512, 512), "64x64")
            assert json.loads(face.info["parameters"])["seed"] == 4712
            shrunk = np.asarray(face.convert("RGB").resize((64, 64), Image.Resampling.BOX), float)
        assert np.abs(shrunk - np.asarray(generated(4712), float)).mean() < 3

    def test_the_original_and_a_card_are_one_tap_away_in_the_viewer(self, page: Page, photo: Path) -> None:
        upload(page, photo)
        make(page)
        page.get_by_role("button", name="Face 1, AI-generated").click()
        viewer = page.get_by_role("dialog", name="One face, enlarged")
        with page.expect_download() as download:
            viewer.get_by_role("button", name="Download the original").click()
        with Image.open(download.value.path()) as face:
            assert face.tobytes() == generated(4711).tobytes()
        with page.expect_download() as download:
            viewer.get_by_role("button", name="Card").click()
        assert download.value.suggested_filename == "lookalike-4711-card.png"
        with Image.open(download.value.path()) as card:
            assert card.width > card.height > 512
            assert json.loads(card.info["parameters"])["seed"] == 4711

    def test_all_are_downloaded_in_a_zip(self, page: Page, photo: Path) -> None:
        upload(page, photo)
        make(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download all").click()
        with zipfile.ZipFile(download.value.path()) as archive:
            assert archive.testzip() is None
            files = [
                f"{folder}lookalike-{seed}.png" for seed in range(4711, 4716) for folder in ("", "original/", "cards/")
            ]
            assert archive.namelist() == files
            with archive.open("original/lookalike-4715.png") as file, Image.open(file) as face:
                assert face.tobytes() == generated(4715).tobytes()

    def test_each_face_says_how_near_it_is_and_the_nearest_comes_first_on_request(
        self, page: Page, photo: Path
    ) -> None:
        upload(page, photo)
        make(page)
        near = page.locator(".tile .caption span")
        expect(near).to_have_text([f"{score} % near" for score in (55, 60, 65, 70, 50)])
        page.get_by_role("button", name="Nearest first").click()
        expect(near).to_have_text([f"{score} % near" for score in (70, 65, 60, 55, 50)])

    def test_one_more_face_nearer_to_the_photo_is_made_from_a_face(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        upload(page, photo)
        make(page)
        page.get_by_role("button", name="Face 2, AI-generated").click()
        page.get_by_role("button", name="More like me").click()
        expect(page.locator(".earlier")).to_have_count(1)
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        asked = service.generations[1]
        assert (asked.seed, asked.num_images, asked.resemblance) == (4712, 1, 0.6)
        assert asked.image == service.generations[0].image

    def test_a_picture_made_here_brings_its_settings_back(
        self, page: Page, service: Service, photo: Path, tmp_path: Path
    ) -> None:
        settings = {"mode": "auto", "resemblance": 0.6, "seed": 77, "sampler": "ddim", "eta": 0.5}
        file = tmp_path / "made.png"
        file.write_bytes(
            made(portrait(64), {**settings, "num_inference_steps": 9, "num_images": 5, "model": "faces-64"})
        )
        upload(page, photo)
        page.set_input_files("#file", file)
        expect(page.locator("#toast")).to_contain_text("The settings of this picture are set.")
        make(page)
        asked = service.generations[0]
        assert (asked.seed, asked.num_images, asked.resemblance) == (77, 1, 0.6)
        assert (asked.sampler, asked.eta, asked.num_inference_steps) == ("ddim", 0.5, 9)
        assert len(service.detections) == 1  # the photo stays the photo

    def test_more_like_a_face_are_made_from_it_as_it_is(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        make(page)
        page.get_by_role("button", name="Face 2, AI-generated").click()
        page.get_by_role("button", name="More like this face").click()
        expect(page.locator("#stage h2")).to_have_text("More like that face")
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        expect(page.locator(".you .caption")).to_have_text("Seed 4712")
        asked = service.generations[1]
        assert (asked.align, asked.mode, asked.num_images, asked.seed) == ("none", "faithful", 5, -1)
        assert Image.open(io.BytesIO(asked.image or b"")).size == (64, 64)
        assert service.detections == service.requests[:1]  # the photo stays the photo

    def test_a_seed_is_used_again(self, page: Page, service: Service) -> None:
        make(page)
        page.get_by_role("button", name="Use seed 4713").click()
        expect(page.get_by_label("Seed", exact=True)).to_have_value("4713")
        make(page, None)
        expect(page.locator(".earlier")).to_have_count(1)
        assert service.generations[1].seed == 4713

    def test_a_face_is_enlarged_beside_the_photos_own_by_keyboard(self, page: Page, photo: Path) -> None:
        upload(page, photo)
        make(page)
        tile = page.get_by_role("button", name="Face 1, AI-generated")
        tile.focus()
        page.keyboard.press("Enter")
        viewer = page.get_by_role("dialog", name="One face, enlarged")
        expect(viewer).to_contain_text("Face 1 of 5 · seed 4711")
        expect(viewer).to_contain_text("AI-generated")
        expect(viewer.get_by_label("You, as the model sees it")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        expect(viewer).to_contain_text("Face 5 of 5")
        page.keyboard.press("Escape")
        expect(viewer).to_be_hidden()
        expect(tile).to_be_focused()

    def test_earlier_faces_are_kept_and_shown_again(self, page: Page) -> None:
        make(page)
        page.get_by_label("Faces", exact=True).fill("2")
        page.get_by_role("button", name="Imagine 2 faces").click()
        expect(page.locator(".earlier")).to_have_count(1)
        page.locator(".earlier").click()
        expect(page.locator('#stage .tile[data-state="done"]')).to_have_count(5)
        expect(page.locator(".earlier")).to_contain_text("No photo")
        expect(page.locator(".earlier")).to_contain_text("2 faces")
