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
