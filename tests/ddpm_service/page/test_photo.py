"""The user's photo: how it comes, what is sent of it, and the face that is used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from ddpm_core.faces import FaceFinder, decode
from ddpm_core.faces.decode import Picture
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


class TestWhatIsSent:
    """A picture's file, its pixels byte for byte, and nothing that it tells besides."""

    @pytest.mark.parametrize(
        "how", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}], ids=str
    )
    @pytest.mark.parametrize("order", [">", "<"])
    def test_a_phones_jpeg(
        self, page: Page, service: Service, tmp_path: Path, how: dict[str, Any], order: Literal["<", ">"]
    ) -> None:
        photo = file_of(
            portrait().resize((640, 480)), "JPEG", exif=told(order), icc_profile=P3, xmp=SECRET, comment=SECRET, **how
        )
        asked = photo[:2] + b"\xff\xed\0\x14Photoshop" + SECRET[:9] + photo[2:] + b"a film: " + SECRET
        sent = goes(page, service, tmp_path / "phone.jpg", asked)
        assert SECRET[:9] not in sent
        assert sent.endswith(photo[photo.index(b"\xff\xdb") :])
        assert (got := Image.open(io.BytesIO(sent))).getexif()[ORIENTATION] == 6
        assert (got.info["icc_profile"], set(got.getexif())) == (P3, {ORIENTATION, 0x8769})
        assert same(decode(sent), decode(asked))
        assert decode(sent).pixels.size == (480, 640)

    @pytest.mark.parametrize("how", ["Adobe", "numbers"])
    def test_colours_that_exif_tells(self, page: Page, service: Service, tmp_path: Path, how: str) -> None:
        exif = Image.Exif()
        exif[0x010F] = SECRET.decode()
        if how == "Adobe":
            exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
        else:
            exif[0x013E], exif[0x013F] = (0.3127, 0.329), (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
            exif.get_ifd(0x8769)[0xA500] = 1.8
        asked = file_of(portrait(), "JPEG", exif=exif)
        sent = goes(page, service, tmp_path / "camera.jpg", asked)
        assert SECRET[:9] not in sent
        assert same(decode(sent), decode(asked))
        assert not same(decode(sent), decode(file_of(portrait(), "JPEG")))

    def test_cmyk(self, page: Page, service: Service, tmp_path: Path) -> None:
        asked = file_of(portrait().convert("CMYK"), "JPEG")
        assert same(decode(goes(page, service, tmp_path / "press.jpg", asked)), decode(asked))

    @pytest.mark.parametrize("name", ["shot.png", "misnamed.jpg"])
    def test_a_png(self, page: Page, service: Service, tmp_path: Path, name: str) -> None:
        texts = PngInfo()
        texts.add_text("Comment", SECRET.decode())
        texts.add_itxt("XML:com.adobe.xmp", SECRET.decode())
        asked = file_of(portrait().convert("P"), "PNG", exif=told(">"), icc_profile=P3, pnginfo=texts, transparency=0)
        sent = goes(page, service, tmp_path / name, asked + SECRET)
        assert SECRET[:9] not in sent
        (got := Image.open(io.BytesIO(sent))).load()
        assert set(got.getexif()) == {ORIENTATION, 0x8769}
        assert same(decode(sent), decode(asked))

    @pytest.mark.parametrize("how", [{}, {"lossless": True}, {"icc_profile": b"a profile"}], ids=str)
    def test_a_webp_that_tells_nothing(self, page: Page, service: Service, tmp_path: Path, how: dict[str, Any]) -> None:
        asked = file_of(portrait(), "WEBP", **how)
        assert goes(page, service, tmp_path / "a.webp", asked) == asked

    @pytest.mark.parametrize("kind", ["WEBP", "AVIF", "GIF", "BMP"])
    def test_what_is_of_another_kind_is_encoded_anew(
        self, page: Page, service: Service, tmp_path: Path, kind: str
    ) -> None:
        how = {"exif": told("<"), "xmp": SECRET} if kind in ("WEBP", "AVIF") else {}
        sent = goes(page, service, tmp_path / f"a.{kind.lower()}", file_of(portrait(301), kind, **how))
        assert SECRET[:9] not in sent
        assert (got := Image.open(io.BytesIO(sent))).format == "PNG"
        if kind == "BMP":
            assert got.convert("RGB").tobytes() == portrait(301).tobytes()

    def test_of_a_very_long_file_a_copy_that_is_halved_as_the_service_halves(
        self, page: Page, service: Service, tmp_path: Path
    ) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1700, 2600, 3), np.uint8))
        long = file_of(noise, "PNG", compress_level=0)
        assert len(long) > 12 * 2**20
        got = Image.open(io.BytesIO(goes(page, service, tmp_path / "long.png", long)))
        assert (got.format, got.size, len(got.getexif())) == ("JPEG", (1300, 850), 0)

    @pytest.mark.parametrize("part", [0.5, 0.01])
    def test_a_file_that_is_cut_off_is_left_to_the_service_and_tells_nothing_either(
        self, page: Page, service: Service, tmp_path: Path, part: float
    ) -> None:
        whole = file_of(portrait(), "JPEG", exif=told(">"))
        file = tmp_path / "cut.jpg"
        file.write_bytes(cut := whole[: int(len(whole) * part)])
        page.set_input_files("#file", file)
        expect(page.get_by_role("alert").filter(visible=True)).to_be_visible()
        sent = service.requests[0].image or b""
        assert SECRET[:9] not in sent
        assert part < 0.1 or cut.endswith(sent[-10_000:])

    @pytest.mark.parametrize("size", [(1200, 500), (2400, 1000), (3000, 1250), (5120, 2133)])
    @pytest.mark.parametrize("kind", ["JPEG", "BMP"])
    def test_the_faces_found_are_those_of_the_file(
        self, page: Page, service: Service, tmp_path: Path, size: tuple[int, int], kind: str
    ) -> None:
        asked = file_of(group().resize(size), kind, quality=90)
        copied = kind == "BMP" and (size[0] > 1600)
        of_file, of_page = (
            np.array([face.box for face in FaceFinder().find(picture)]) / picture.width
            for picture in (decode(asked), decode(goes(page, service, tmp_path / f"group.{kind}", asked)))
        )
        assert of_file.shape == (3, 4)
        assert of_page == pytest.approx(of_file, abs=0.002 if copied else 0)


SECRET = b"48.2082 N, 16.3738 E"
ORIENTATION = 0x0112
P3 = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) + b"a profile of its own"


def told(order: Literal["<", ">"]) -> bytes:
    """What a phone's EXIF tells: a quarter's turn, the place, the maker, a thumbnail."""
    exif = Image.Exif()
    exif.endian = order
    exif[ORIENTATION] = 6
    exif[0x010F] = SECRET.decode()
    exif.get_ifd(0x8769).update({0x927C: SECRET, 0xA001: 1, 0x9003: "2026:01:01 00:00:00"})
    exif.get_ifd(0x8825)[1] = SECRET.decode()
    return exif.tobytes()


def same(one: Picture, other: Picture) -> bool:
    return np.array_equal(np.asarray(one.pixels), np.asarray(other.pixels))


def goes(page: Page, service: Service, file: Path, data: bytes) -> bytes:
    """What the service is sent of a file that was chosen."""
    file.write_bytes(data)
    page.set_input_files("#file", file)
    expect(page.locator("#photo-note")).to_contain_text("Found")
    (request,) = service.requests
    return request.image or b""
