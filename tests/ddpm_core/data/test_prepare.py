import hashlib
import http.server
import json
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ddpm_core.data import download as downloads
from ddpm_core.data.images import load
from ddpm_core.data.judge import NearDuplicates, is_collage
from ddpm_core.data.prepare import prepare
from ddpm_core.errors import InvalidInput


def scene(seed, side=128):
    """A picture with structure at many scales, unlike any other seed's."""
    random = np.random.default_rng(seed)
    picture = np.zeros((side, side, 3))
    for cells, weight in ((1, 0.4), (2, 0.3), (4, 0.2), (16, 0.1)):
        layer = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        picture += weight * np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray(picture.astype(np.uint8))


def collage(columns, rows, gap, colour="white", side=96):
    sheet = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap), colour)
    for i in range(columns * rows):
        sheet.paste(scene(i, side), (i % columns * (side + gap), i // columns * (side + gap)))
    return sheet


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    pictures = {
        "a/one.png": scene(1),
        "a/two.jpg": scene(2),
        "b/three.png": scene(3).resize((200, 128)),
        "b/sheet.png": collage(2, 2, 6),
        "b/small.png": scene(4, 40),
        "b/twin.jpg": ImageEnhance.Brightness(scene(1)).enhance(1.1).resize((90, 90)),
        "b/mirror.jpg": scene(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "one.png").read_bytes())
    (folder / "b" / "page.jpg").write_bytes(b"<html>404</html>")
    return folder


FATES = {
    "b/copy.png": "same file: a/one.png",
    "b/mirror.jpg": "near duplicate: a/two.jpg",
    "b/page.jpg": "no image: The upload is not an image of a known kind.",
    "b/sheet.png": "collage",
    "b/small.png": "too small: 40 pixels, of 64 wanted",
    "b/twin.jpg": "near duplicate: a/one.png",
}


def test_what_spoils_a_set_is_left_out_and_the_report_says_why(source, tmp_path):
    report = prepare(source, tmp_path / "out", 64)
    assert report["left_out"] == FATES
    assert (report["found"], report["kept"]) == (9, 3)
    expected = {"near duplicate": 2, "same file": 1, "no image": 1, "collage": 1, "too small": 1}
    assert report["dropped"] == expected
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report
    with Image.open(tmp_path / "out" / "dropped.png") as sheet:
        assert sheet.size == (6 * 96, 110)


def test_what_is_kept_is_a_training_set_with_its_classes(source, tmp_path):
    prepare(source, tmp_path / "out", 64)
    images = load(tmp_path / "out" / "images", 64)
    assert images.names == ("a/one.png", "a/two.png", "b/three.png")
    middle = scene(3).resize((200, 128)).crop((36, 0, 164, 128)).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(images.pixels[2], np.asarray(middle), atol=1)


def test_the_originals_are_never_changed(source, tmp_path):
    def state():
        return {f: (hashlib.sha256(f.read_bytes()).digest(), f.stat().st_mtime_ns) for f in source.rglob("*.*")}

    before = state()
    prepare(source, tmp_path / "out", 64)
    assert state() == before


def test_the_smallest_side_can_be_chosen(source, tmp_path):
    assert "b/small.png" in prepare(source, tmp_path / "out", 64, min_side=40)["images"]


def test_two_names_that_differ_in_their_ending_both_stay(tmp_path):
    (tmp_path / "in").mkdir()
    scene(1).save(tmp_path / "in" / "x.png")
    scene(2).save(tmp_path / "in" / "x.jpg")
    assert set(prepare(tmp_path / "in", tmp_path / "out", 64)["images"].values()) == {"x.png", "x.png.png"}


def test_a_face_domain_keeps_pictures_with_a_face_and_crops_it(tmp_path):
    from skimage import data

    (tmp_path / "in").mkdir()
    Image.fromarray(data.astronaut()).save(tmp_path / "in" / "astronaut.png")
    scene(1, 256).save(tmp_path / "in" / "scene.png")
    report = prepare(tmp_path / "in", tmp_path / "out", 64, domain="human_face")
    assert report["left_out"] == {"scene.png": "no face"}
    with Image.open(tmp_path / "out" / "images" / "astronaut.png") as face:
        assert face.size == (64, 64)
        skin = np.asarray(face.convert("RGB"))[28:44, 22:42].mean(axis=(0, 1))
    assert skin[0] > skin[2] + 20


def test_a_prepared_set_is_not_overwritten_but_an_interrupted_one_is(source, tmp_path):
    out = tmp_path / "out"

    def interrupt(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, 64, progress=interrupt)
    assert not (out / "images").exists()
    prepare(source, out, 64)
    assert {path.name for path in out.iterdir()} == {"images", "report.json", "dropped.png"}
    assert len(list((out / "images").rglob("*.png"))) == 3
    with pytest.raises(InvalidInput, match="already holds a prepared set"):
        prepare(source, out, 64)


@pytest.mark.parametrize("where", ["images", "images/mine", "../elsewhere"])
def test_pictures_that_were_not_prepared_here_are_never_removed(where, source, tmp_path):
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    scene(9).save(out / "images" / "mine.png")
    originals = out / where
    originals.mkdir(exist_ok=True)
    scene(8).save(originals / "original.png")
    with pytest.raises(InvalidInput, match=r"images exists already, and no report\.json"):
        prepare(originals, out, 64)
    assert (originals / "original.png").exists()
    assert (out / "images" / "mine.png").exists()


def test_a_source_in_what_an_interrupted_preparation_left_is_refused(tmp_path):
    left = tmp_path / ".images.partial"
    left.mkdir()
    scene(1).save(left / "one.png")
    with pytest.raises(InvalidInput, match="which is removed"):
        prepare(left, tmp_path, 64)
    assert (left / "one.png").exists()


def test_nothing_kept_is_an_error_that_says_why_and_shows_it(source, tmp_path):
    with pytest.raises(
        InvalidInput, match=r"None of 9 pictures .*: 6 too small.*; the first, a/one\.png: too small: 128 pix"
    ) as refused:
        prepare(source, tmp_path / "out", 64, min_side=1000)
    assert refused.value.code == "no_images"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dropped.png"]


def test_a_file_name_that_is_not_utf_8_is_reported_as_it_is(tmp_path):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    scene(1).save(tmp_path / "in" / name)
    report = prepare(tmp_path / "in", tmp_path / "out", 64)
    assert report["images"] == {name: name}
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report


def test_a_damaged_member_of_a_zip_is_left_out(source, tmp_path):
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/one.png", "a/two.jpg"):
            archive.write(source / name, name)
        start = archive.getinfo("a/two.jpg").header_offset
    data = bytearray(path.read_bytes())
    data[start + 300] ^= 0xFF
    path.write_bytes(data)
    report = prepare(path, tmp_path / "out", 64)
    assert set(report["images"]) == {"a/one.png"}
    assert report["left_out"]["a/two.jpg"].startswith("unreadable: the zip's member cannot be read: Bad CRC-32")


def test_a_set_is_not_made_inside_its_source(source):
    with pytest.raises(InvalidInput, match="inside the source"):
        prepare(source, source / "out", 64)


@pytest.mark.parametrize("gap", [0, 6])
@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2, 2), (3, 3)])
@pytest.mark.parametrize("colour", ["white", "black"])
def test_collages_are_recognised(shape, gap, colour):
    assert is_collage(collage(*shape, gap, colour))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "camera", "grass", "coins", "rocket"])
def test_photographs_are_not_collages(name):
    from skimage import data

    assert not is_collage(Image.fromarray(getattr(data, name)()))


def test_a_plain_area_is_a_near_duplicate_of_nothing():
    near = NearDuplicates()
    near.add("grey", Image.new("RGB", (64, 64), "grey"))
    assert near.find(Image.new("RGB", (64, 64), "white")) is None


def test_many_pictures_are_remembered():
    near = NearDuplicates()
    for seed in range(300):
        near.add(str(seed), scene(seed, 32))
    assert near.find(scene(280, 32).resize((24, 24))) == "280"
    assert near.find(scene(400, 32)) is None


class Site(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; counts what is asked for; fails some addresses the first time."""

    asked: list[str]
    failing: set[str]
    cut = False

    def do_GET(self):
        self.asked.append(self.path)
        if self.path in self.failing:
            self.failing.discard(self.path)
            self.send_error(503)
            return
        if self.cut:
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"half of it")
            return
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(source, monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE", 0.001)
    handler = type("Here", (Site,), {"asked": [], "failing": set()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: handler(*args, directory=str(source)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


def silent(*_: object) -> None:
    pass


def listed(tmp_path, site, names) -> Path:
    file = tmp_path / "addresses.txt"
    file.write_text("".join(f"{site.url}/{name}\n" for name in names), encoding="utf-8")
    return file


def test_a_list_of_addresses_is_fetched_and_prepared(site, tmp_path):
    site.failing.add("/a/two.jpg")
    addresses = listed(tmp_path, site, ["a/one.png", "a/two.jpg", "b/page.jpg", "gone.png", "a/one.png"])
    report = prepare(addresses, tmp_path / "out", 64, allow_private=True)
    assert set(report["images"]) == {f"{site.url}/a/one.png", f"{site.url}/a/two.jpg"}
    assert report["left_out"][f"{site.url}/gone.png"] == "not fetched: the server answered 404"
    assert len(load(tmp_path / "out" / "images", 64).names) == 2


def test_addresses_with_letters_beyond_ascii_in_a_list_with_a_byte_order_mark_are_fetched(site, source, tmp_path):
    scene(5).save(source / "a" / "größe 1.png")
    addresses = tmp_path / "addresses.txt"
    addresses.write_text(f"{site.url}/a/größe 1.png\n", encoding="utf-8-sig")
    assert prepare(addresses, tmp_path / "out", 64, allow_private=True)["kept"] == 1
    assert site.asked == ["/a/gr%C3%B6%C3%9Fe%201.png"]


def test_a_list_of_addresses_in_another_encoding_loses_those_lines_alone(site, tmp_path):
    addresses = tmp_path / "addresses.txt"
    addresses.write_bytes(f"{site.url}/a/one.png\n{site.url}/a/größe.png\n".encode("latin-1"))
    report = prepare(addresses, tmp_path / "out", 64, allow_private=True)
    assert (report["kept"], [*report["left_out"].values()]) == (1, ["not fetched: the server answered 404"])


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("http://bücher.example:8080/ä?q=é", "http://xn--bcher-kva.example:8080/%C3%A4?q=%C3%A9"),
        ("https://a.example/%20b?c=d&e#f", "https://a.example/%20b?c=d&e#f"),
    ],
)
def test_an_address_is_asked_for_as_the_web_writes_it(address, asked):
    assert downloads._in_ascii(address) == asked


def test_what_is_no_address_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE", 0.001)
    _, failures = downloads.download(
        ["http://[::1", "http://a..b/x", "ftp://a/x"], tmp_path / "files", lambda *_: None, allow_private=True
    )
    assert len(failures) == 3
    assert failures["ftp://a/x"] == "not an http or https address"


def test_an_interrupted_download_goes_on_where_it_stopped(site, tmp_path):
    out = tmp_path / "out"

    def interrupt(what, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(listed(tmp_path, site, ["a/one.png", "a/two.jpg"]), out, 64, progress=interrupt, allow_private=True)
    (out / "downloads" / "cut.part").write_bytes(b"half")
    site.asked.clear()
    report = prepare(listed(tmp_path, site, ["a/one.png", "a/two.jpg", "b/three.png"]), out, 64, allow_private=True)
    assert site.asked == ["/b/three.png"]
    assert report["kept"] == 3


def test_a_server_that_is_not_there_is_a_reason_not_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSE", 0.001)
    addresses = tmp_path / "addresses.txt"
    addresses.write_text("http://127.0.0.1:9/x.png\n", encoding="utf-8")
    with pytest.raises(
        InvalidInput, match=r"1 not fetched; the first, http://127\.0\.0\.1:9/x\.png: .*Connection refused"
    ):
        prepare(addresses, tmp_path / "out", 64, allow_private=True)


def test_too_large_a_file_is_not_kept(site, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 1000)
    files, failures = downloads.download(
        [f"{site.url}/a/one.png"], tmp_path / "files", lambda *_: None, allow_private=True
    )
    assert files == {}
    assert list(failures.values()) == ["larger than 0 MiB"]
    assert list((tmp_path / "files").iterdir()) == []


def test_a_file_that_was_cut_off_is_not_kept(site, tmp_path):
    site.cut = True
    files, failures = downloads.download(
        [f"{site.url}/a/one.png"], tmp_path / "files", lambda *_: None, allow_private=True
    )
    assert files == {}
    assert list(failures.values()) == ["the connection broke"]
    assert list((tmp_path / "files").iterdir()) == []


def test_what_is_no_picture_is_counted_by_reason_and_not_drawn(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    scene(1).save(folder / "a.png")
    (folder / "notes.txt").write_text("text")
    (folder / "again").symlink_to(folder)
    report = prepare(folder, tmp_path / "out", 32)
    assert report["dropped"] == {"linked folder that is read already": 1, "no image": 1}
    assert report["left_out"]["notes.txt"] == "no image"
    assert (report["found"], report["kept"]) == (3, 1)
    assert not (tmp_path / "out" / "dropped.png").exists()
