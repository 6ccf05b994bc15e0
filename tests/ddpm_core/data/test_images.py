import errno
import io
import os

import numpy as np
import pytest
from PIL import Image

from ddpm_core.data.images import decode, load
from ddpm_core.data.left_out import told
from ddpm_core.errors import InvalidInput


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "mixed"
    for name, image in {
        "cats/wide.png": Image.new("RGB", (60, 30), (200, 10, 10)),
        "cats/grey.png": Image.new("L", (20, 40), 77),
        "dogs/clear.png": Image.new("RGBA", (24, 24), (0, 0, 0, 0)),
        "dogs/palette.gif": Image.new("P", (33, 17)),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    (folder / "dogs" / "cut.png").write_bytes(png(Image.new("RGB", (50, 50)))[:60])
    (folder / "dogs" / "text.jpg").write_bytes(b"<html>not found</html>")
    return folder


def test_mixed_sizes_and_modes_become_one_array_and_unreadable_files_are_reported(mixed):
    images = load(mixed, 16)
    assert images.names == ("cats/grey.png", "cats/wide.png", "dogs/clear.png", "dogs/palette.gif")
    assert images.pixels.shape == (4, 16, 16, 3)
    assert images.pixels[0, 8, 8].tolist() == [77] * 3
    assert images.pixels[2, 8, 8].tolist() == [255] * 3  # transparent: white
    assert [name for name, _ in images.dropped] == ["dogs/cut.png", "dogs/text.jpg"]
    assert [why.split(":")[0] for _, why in images.dropped] == ["damaged", "no image"]


def test_files_that_are_no_images_are_among_those_left_out(mixed):
    (mixed / "notes.txt").write_text("text")
    left = load(mixed, 16).dropped
    assert left[-1] == ("notes.txt", "no image")
    assert told(left).startswith("3 files left out (2 no image, 1 damaged); the first: dogs/cut.png: damaged: ")


def test_classes_choose_sub_folders_and_an_unknown_one_is_named_with_those_that_exist(mixed):
    assert all(name.startswith("cats/") for name in load(mixed, 16, classes=("cats",)).names)
    with pytest.raises(InvalidInput, match=r"no class folder birds.*Known: cats, dogs"):
        load(mixed, 16, classes=("birds",))


def test_the_middle_square_is_kept_undistorted():
    image = Image.new("RGB", (64, 32), "black")
    image.paste("white", (16, 0, 48, 32))
    assert (decode(png(image), 32) == 255).all()


def test_grey_models_get_one_channel(mixed):
    assert load(mixed, 16, channels=1).pixels.shape == (4, 16, 16, 1)


def test_what_does_not_fit_into_memory_lies_in_a_file_with_the_same_content(mixed, tmp_path):
    cache = tmp_path / "cache"
    inside, outside = load(mixed, 16), load(mixed, 16, cache=cache, memory=10)
    again = load(mixed, 16, cache=cache, memory=10)
    assert isinstance(outside.pixels, np.memmap) or isinstance(again.pixels.base, np.memmap)
    for images in (outside, again):
        np.testing.assert_array_equal(images.pixels, inside.pixels)
        assert (images.names, images.digests, images.dropped) == (inside.names, inside.digests, inside.dropped)


def test_a_cache_of_other_data_is_not_taken_for_this(mixed, tmp_path):
    cache = tmp_path / "cache"
    load(mixed, 16, cache=cache, memory=10)
    Image.new("RGB", (20, 20)).save(mixed / "cats" / "new.png")
    assert "cats/new.png" in load(mixed, 16, cache=cache, memory=10).names
    assert load(mixed, 24, cache=cache, memory=10).pixels.shape[1] == 24


def test_a_cache_of_what_the_files_were_before_is_not_taken(mixed, tmp_path):
    cache = tmp_path / "cache"
    load(mixed, 16, cache=cache, memory=10)
    Image.new("RGB", (20, 40), (1, 2, 3)).save(mixed / "cats" / "grey.png")
    assert load(mixed, 16, cache=cache, memory=10).pixels[0, 8, 8].tolist() == [1, 2, 3]


def test_a_list_that_names_a_missing_file_is_cached_too(mixed, tmp_path):
    listed = mixed / "list.txt"
    listed.write_text("cats/grey.png\ngone.png\n", encoding="utf-8")
    images = load(listed, 16, cache=tmp_path / "cache", memory=10)
    assert images.names == ("cats/grey.png",)
    assert [name for name, _ in images.dropped] == ["gone.png"]


def test_a_disk_without_room_is_an_error_before_anything_is_decoded(mixed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*cache/"):
        load(mixed, 16, cache=tmp_path / "cache", memory=10)
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_readable_image_at_all_is_an_error_that_says_why(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(
        InvalidInput, match=r"None of 1 images can be used \(1 no image\); the first, a\.png: .*not an image"
    ):
        load(tmp_path, 16)


def test_the_fingerprint_changes_with_the_files(mixed):
    before = load(mixed, 16).fingerprint
    assert load(mixed, 16).fingerprint == before
    Image.new("RGB", (20, 20)).save(mixed / "cats" / "grey.png")
    assert load(mixed, 16).fingerprint != before
