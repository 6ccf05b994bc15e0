import zipfile

import pytest

from ddpm_core.data.collection import open_collection
from ddpm_core.errors import InvalidInput


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.png", "a/1.JPG", "a/deep/3.webp", "notes.txt", ".hidden/4.png"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path / "data"


def test_a_folder_is_walked_to_any_depth_in_a_fixed_order(folder):
    collection = open_collection(folder)
    assert list(collection.names) == ["a/1.JPG", "a/deep/3.webp", "b/2.png"]
    assert collection.read("b/2.png") == b"b/2.png"


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def odd(tmp_path):
    """A folder as people have them: odd endings, a linked folder, one linked twice and in a circle."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "5.jpg").write_bytes(b"5")
    for name in ("1.JPG", "2.jfif", "3.jpe", "4.HIF", "6.jpg_original", "7.txt", ".8.png", "sub/9.png"):
        file = data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG if name == "6.jpg_original" else name.encode())
    (data / "a link").symlink_to(elsewhere)
    (data / "z link").symlink_to(elsewhere)
    (data / "sub" / "circle").symlink_to(data)
    (data / "broken").symlink_to(tmp_path / "nowhere")
    return data


def test_linked_folders_are_read_once_and_endings_in_all_their_spellings(odd):
    assert open_collection(odd).names == ["1.JPG", "2.jfif", "3.jpe", "4.HIF", "a link/5.jpg", "sub/9.png"]


def test_every_file_that_is_not_used_is_told_with_its_reason(odd):
    assert open_collection(odd).unused == {
        "6.jpg_original": "image with an unknown ending: PNG",
        "7.txt": "no image",
        ".8.png": "hidden",
        "broken": "unreadable: no file: a broken link or a device",
        "z link": "linked folder that is read already",
        "sub/circle": "linked folder that is read already",
    }


def test_a_zip_tells_what_it_does_not_use_too(odd, tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("1.JPG", "6.jpg_original", "7.txt", ".8.png"):
            archive.write(odd / name, name)
    plain = open_collection(odd).unused
    assert open_collection(path).unused == {name: plain[name] for name in ("6.jpg_original", "7.txt", ".8.png")}


def test_a_folder_without_images_says_what_it_holds_and_what_images_are_called(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.raw").write_bytes(PNG)
    with pytest.raises(InvalidInput, match=r"seen: 1 no image, 1 image with an unknown ending\).*\.jfif \.jpe \.jpeg"):
        open_collection(tmp_path)


def test_a_zip_is_read_as_the_folder_it_was_made_of(folder, tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))
    collection, plain = open_collection(path), open_collection(folder)
    assert list(collection.names) == list(plain.names)
    assert all(collection.read(name) == plain.read(name) for name in plain.names)


def test_a_list_names_one_image_a_line_relative_to_itself(folder):
    listed = folder / "list.txt"
    listed.write_text("b/2.png\n\na/1.JPG\n", encoding="utf-8")
    collection = open_collection(listed)
    assert list(collection.names) == ["b/2.png", "a/1.JPG"]
    assert collection.read("a/1.JPG") == b"a/1.JPG"


def test_a_list_may_begin_with_a_byte_order_mark(folder):
    listed = folder / "list.txt"
    listed.write_text("b/2.png\n", encoding="utf-8-sig")
    assert list(open_collection(listed).names) == ["b/2.png"]


@pytest.mark.parametrize("harm", ["bytes", "encryption", "method"])
def test_a_member_of_a_zip_that_cannot_be_read_is_an_os_error_and_the_others_are_read(harm, tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bad.png", b"content" * 100)
        archive.writestr("good.png", b"good")
    data = bytearray(path.read_bytes())
    local, central = data.find(b"PK\3\4"), data.find(b"PK\1\2")
    if harm == "bytes":
        data[local + 40 : local + 44] = b"\xff\xff\xff\xff"
    elif harm == "encryption":
        data[local + 6] |= 1
        data[central + 8] |= 1
    else:
        data[local + 8] = data[central + 10] = 99
    path.write_bytes(data)
    collection = open_collection(path)
    with pytest.raises(OSError, match="the zip's member cannot be read"):
        collection.read("bad.png")
    assert collection.read("good.png") == b"good"


def test_a_stamp_changes_with_its_file(folder, tmp_path):
    collection = open_collection(folder)
    before = collection.stamp("b/2.png"), collection.stamp("a/1.JPG")
    (folder / "b/2.png").write_bytes(b"other content")
    assert collection.stamp("b/2.png") != before[0]
    assert collection.stamp("a/1.JPG") == before[1]


def test_a_zip_without_a_readable_directory_is_refused_by_name(tmp_path):
    path = tmp_path / "thing.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"a")
    data = bytearray(path.read_bytes())
    central = data.find(b"PK\1\2")
    data[central : central + 4] = b"none"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"The zip .*thing\.zip is damaged or not taken"):
        open_collection(path)


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "not a list"])
def test_what_holds_no_images_is_refused_by_name(kind, tmp_path):
    path = tmp_path / "thing"
    if kind == "empty folder":
        path.mkdir()
    if kind == "not a list":
        path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InvalidInput, match="thing") as caught:
        open_collection(path)
    assert caught.value.code == ("no_images" if kind == "empty folder" else "no_data")
