"""The page in a real browser, against a server that speaks the contract."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ddpm_api import Error
from ddpm_service.page import FILES
from tests.ddpm_service.page.conftest import STEPS, Service, file_of, generated, model, portrait

UPLOADED = {"mode": "auto", "num_images": 5, "align": "auto", "face": None, "seed": -1, "resemblance": None}


def upload(page: Page, photo: Path) -> None:
    page.set_input_files("#file", photo)
    expect(page.locator(".crop")).to_be_visible()


def make(page: Page, phase: str | None = "done") -> None:
    page.locator("#generate").click()
    if phase:
        expect(page.locator("#stage")).to_have_attribute("data-phase", phase)


def finished(page: Page) -> int:
    return page.locator('.tile[data-state="done"]').count()


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


class TestPhoto:
    def test_the_face_found_is_framed(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        expect(page.locator("#photo-note")).to_contain_text("Found the face")
        assert service.detections[0].return_target

    def test_a_phone_sized_photo_arrives_upright_small_and_without_metadata(
        self, page: Page, service: Service, tmp_path: Path
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned a quarter
        exif[0x010F] = "Phone maker"
        file = tmp_path / "phone.jpg"
        file.write_bytes(file_of(portrait().resize((4000, 3000)), "JPEG", exif=exif))
        upload(page, file)
        sent = Image.open(io.BytesIO(service.requests[0].image or b""))
        assert sent.size == (1200, 1600)
        assert len(sent.getexif()) == 0

    def test_another_face_is_chosen_by_a_tap(self, page: Page, service: Service, photo: Path) -> None:
        service.faces = 2
        upload(page, photo)
        expect(page.locator("#photo-note")).to_contain_text("2 faces found")
        page.get_by_role("button", name="Use face 2 of 2").click()
        expect(page.get_by_role("button", name="Use face 1 of 2")).to_be_visible()
        make(page)
        assert service.generations[0].face == 1

    def test_the_frame_is_moved_and_resized_by_pointer_inside_the_photo(
        self, page: Page, service: Service, photo: Path
    ) -> None:
        upload(page, photo)
        frame = page.locator(".crop").bounding_box()
        assert frame is not None
        page.mouse.move(frame["x"] + 20, frame["y"] + 30)
        page.mouse.down()
        page.mouse.move(frame["x"] + 20, frame["y"] - 500, steps=3)
        page.mouse.up()
        moved = page.locator(".crop").bounding_box()
        assert moved is not None
        page.mouse.move(moved["x"] + moved["width"], moved["y"] + moved["height"])
        page.mouse.down()
        page.mouse.move(moved["x"] + moved["width"] + 30, moved["y"] + moved["height"] + 30, steps=3)
        page.mouse.up()
        make(page)
        left, top, right, bottom = service.generations[0].align
        assert (left, top) == (pytest.approx(144, abs=3), 0)
        assert right - left == bottom - top
        assert right - left > 200
        assert service.generations[0].face is None

    def test_the_frame_is_moved_by_keyboard_and_given_back(self, page: Page, service: Service, photo: Path) -> None:
        upload(page, photo)
        page.locator(".crop").focus()
        for key in ("ArrowRight", "Shift+ArrowDown", "+", "-"):
            page.keyboard.press(key)
        expect(page.locator("#photo-note")).to_have_text("Your own frame is used.")
        make(page)
        assert service.generations[0].align[0] == pytest.approx(144 + 0.02 * 162, abs=2)
        page.get_by_role("button", name="Reset").click()
        expect(page.locator("#photo-note")).to_contain_text("Found the face")
        make(page)
        assert service.generations[1].align == "auto"

    def test_no_face_is_said(self, page: Page, service: Service, photo: Path) -> None:
        service.faces = 0
        upload(page, photo)
        expect(page.locator("#photo-note")).to_contain_text("No face found")

    def test_what_the_browser_cannot_decode_is_left_to_the_service(
        self, page: Page, service: Service, tmp_path: Path
    ) -> None:
        file = tmp_path / "selfie.tiff"
        file.write_bytes(file_of(portrait(), "TIFF"))
        page.set_input_files("#file", file)
        expect(page.locator("#photo-note")).to_contain_text("This browser cannot show the photo")
        expect(page.locator("#photo-image")).to_be_visible()
        assert service.requests[0].image == file.read_bytes()

    def test_what_is_no_picture_is_told_in_plain_words(self, page: Page, tmp_path: Path) -> None:
        file = tmp_path / "notes.png"
        file.write_text("no picture")
        page.set_input_files("#file", file)
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("not a picture")

    def test_a_photo_can_be_dropped_and_pasted(self, page: Page, service: Service, photo: Path) -> None:
        for kind, count in (("drop", 1), ("paste", 2)):
            page.evaluate(
                """async ([kind, bytes]) => {
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], "a.jpg", { type: "image/jpeg" }));
                    const options = { dataTransfer: data, clipboardData: data, bubbles: true, cancelable: true };
                    const Kind = kind === "drop" ? DragEvent : ClipboardEvent;
                    document.body.dispatchEvent(new Kind(kind, options));
                }""",
                [kind, list(photo.read_bytes())],
            )
            expect(page.locator("#photo-note")).to_contain_text("Found the face")
            page.get_by_role("button", name="Remove").click()
            expect(page.get_by_role("button", name="Choose a photo")).to_be_focused()
            assert len(service.detections) == count

    def test_the_webcam_is_shown_mirrored_and_its_picture_is_used(self, page: Page, service: Service) -> None:
        page.get_by_role("button", name="Camera").click()
        expect(page.locator("#camera-video")).to_have_css("transform", "matrix(-1, 0, 0, 1, 0, 0)")
        expect(page.locator("#camera-video")).not_to_have_js_property("videoWidth", 0)
        page.get_by_role("button", name="Take the picture").click()
        expect(page.locator("#photo-note")).to_contain_text("Found the face")
        assert page.evaluate("document.getElementById('camera-video').srcObject") is None
        assert service.detections[0].image


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
        expect(page.locator(".size")).to_have_text("64 × 64 pixels, smoothly enlarged here")
        expect(page.locator("#live")).to_have_text("5 faces in 3 s")

    def test_a_picture_is_shown_as_soon_as_it_is_finished(self, page: Page, service: Service) -> None:
        service.wait_at = STEPS
        make(page, "running")
        expect(page.locator('.tile[data-state="done"]')).to_have_count(2)

    def test_the_place_in_the_queue_is_told(self, page: Page, service: Service) -> None:
        service.queue, service.step_seconds = 3, 0.3
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
        assert service.left.wait(5)
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
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("What has arrived is kept.")
        assert finished(page) == 2
        service.wait_at = None
        service.start()
        expect(page.locator("#stage")).to_have_attribute("data-phase", "done")
        assert finished(page) == 5
        assert page.locator(".tile img").nth(0).get_attribute("src") == kept
        expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)

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


class TestResults:
    def test_one_is_downloaded_as_it_came(self, page: Page) -> None:
        make(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download face 2").click()
        assert download.value.suggested_filename == "lookalike-4712.png"
        assert download.value.path().read_bytes() == file_of(generated(4712))

    def test_all_are_downloaded_in_a_zip(self, page: Page) -> None:
        make(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download all").click()
        with zipfile.ZipFile(download.value.path()) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [f"lookalike-{seed}.png" for seed in range(4711, 4716)]
            assert archive.read("lookalike-4715.png") == file_of(generated(4715))

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
        expect(viewer.get_by_label("You, as the model sees you")).to_be_visible()
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
        expect(page.locator(".earlier")).to_contain_text("2 faces")


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
