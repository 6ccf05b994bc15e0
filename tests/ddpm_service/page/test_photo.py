"""The user's photo: how it comes, what is sent of it, and the face that is used."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from ddpm_core.faces import FaceFinder, decode
from tests.ddpm_service.page.hands import make, upload
from tests.ddpm_service.page.service import Service, file_of, portrait


def group() -> Image.Image:
    """Three people of several sizes."""
    face, group = portrait().crop((110, 0, 340, 230)), Image.new("RGB", (1200, 500), "slategray")
    for left, side in ((20, 420), (480, 340), (860, 260)):
        group.paste(face.resize((side, side)), (left, 40))
    return group


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
        assert sent.size == (1500, 2000)
        assert len(sent.getexif()) == 0

    def test_another_face_is_chosen_by_a_tap(self, page: Page, service: Service, photo: Path) -> None:
        service.faces = 2
        upload(page, photo)
        expect(page.locator("#photo-note")).to_have_text("2 faces found. Tap another one to use it.")
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
        page.get_by_role("button", name="Reset the frame").click()
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
        expect(page.get_by_role("button", name="Choose a photo")).to_be_focused()
        expect(page.get_by_role("button", name="Imagine 5 faces")).to_be_visible()

    @pytest.mark.parametrize("size", [(1200, 500), (2400, 1000), (3000, 1250), (5120, 2133)])
    def test_the_page_and_a_request_of_the_file_find_the_same_faces(
        self, page: Page, service: Service, tmp_path: Path, size: tuple[int, int]
    ) -> None:
        file = tmp_path / "group.jpg"
        file.write_bytes(file_of(group().resize(size), "JPEG", quality=90))
        upload(page, file)
        expect(page.locator("#photo-note")).to_contain_text("Found")
        asked, sent = (decode(data) for data in (file.read_bytes(), service.requests[0].image or b""))
        of_file, of_page = (
            np.array([face.box for face in FaceFinder().find(picture)]) / picture.width for picture in (asked, sent)
        )
        assert of_file.shape == (3, 4)
        assert of_page == pytest.approx(of_file, abs=0 if max(size) <= 1600 else 0.002)

    def test_a_small_photo_keeps_its_every_pixel(self, page: Page, service: Service, tmp_path: Path) -> None:
        file = tmp_path / "small.png"
        file.write_bytes(file_of(portrait(301)))
        upload(page, file)
        sent = Image.open(io.BytesIO(service.requests[0].image or b""))
        assert sent.convert("RGB").tobytes() == portrait(301).tobytes()

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
