"""Faces are found, turned upright and framed as in CelebA-HQ, and the same selfie gives the same target."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import Face, FaceFinder, Picture, Target, align, decode
from ddpm_core.faces.align import face_quad

# Astronaut's eyes and mouth, read off the photograph by hand.
EYES_AND_MOUTH = ((203.5, 101.0), (247.0, 103.5), (224.5, 139.5))


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def as_picture(image: Image.Image) -> Picture:
    return Picture(image.convert("RGB"), *image.size)


def upload(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(a: Target, b: Target) -> float:
    return float(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).mean())


def codes(target: Target) -> list[str]:
    return [code for code, _ in target.warnings]


def refusal(picture: Picture, finder: FaceFinder, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        align(picture, 64, finder, **options)
    assert caught.value.allowed
    return caught.value


# Finding


def test_a_face_is_found_with_its_eyes_and_mouth(finder: FaceFinder, astronaut: Image.Image) -> None:
    (face,) = finder.find(as_picture(astronaut))
    for found, there in zip((face.left_eye, face.right_eye, face.mouth), EYES_AND_MOUTH, strict=True):
        assert found is not None
        assert math.dist(found, there) < 8  # a fifth of the distance of the eyes
    left, top, right, bottom = face.box
    assert left < 200 < 250 < right
    assert top < 100 < 155 < bottom
    assert face.score > 0.8
    assert face.kind == "human"


def test_coordinates_are_those_of_the_full_picture(finder: FaceFinder, astronaut: Image.Image) -> None:
    (face,) = finder.find(as_picture(astronaut))
    (reduced,) = finder.find(Picture(astronaut, 2048, 2048))
    assert np.allclose(np.array(reduced.box), 4 * np.array(face.box))
    assert reduced.left_eye is not None
    assert face.left_eye is not None
    assert np.allclose(reduced.left_eye, 4 * np.array(face.left_eye))


@pytest.mark.parametrize("name", ["coffee", "rocket", "brick", "hubble_deep_field", "camera"])
def test_nothing_is_found_where_no_face_is_to_be_seen(finder: FaceFinder, name: str) -> None:
    assert finder.find(as_picture(Image.fromarray(getattr(data, name)()))) == ()


def test_dim_light(finder: FaceFinder, astronaut: Image.Image) -> None:
    (face,) = finder.find(as_picture(astronaut))
    (dim,) = finder.find(as_picture(astronaut.point(lambda level: level // 8)))
    assert math.dist(face.box[:2], dim.box[:2]) < 6


def test_a_small_face_in_a_large_picture(finder: FaceFinder, astronaut: Image.Image) -> None:
    wide = Image.new("RGB", (2000, 1500), (90, 120, 90))
    wide.paste(astronaut, (1300, 800))
    (face,) = finder.find(as_picture(wide))
    assert face.left_eye is not None
    assert math.dist(face.left_eye, (1300 + 203.5, 800 + 101)) < 8


def test_several_faces_come_largest_first(finder: FaceFinder, astronaut: Image.Image) -> None:
    faces = finder.find(as_picture(two_of(astronaut)))
    assert len(faces) == 2
    assert [face.box[0] > 256 for face in faces] == [True, False]


def two_of(astronaut: Image.Image) -> Image.Image:
    """The smaller face on the left, the larger on the right."""
    pair = Image.new("RGB", (768, 512), "white")
    pair.paste(astronaut.resize((256, 256), Image.Resampling.LANCZOS), (0, 100))
    pair.paste(astronaut, (256, 0))
    return pair


@pytest.mark.parametrize("domain", ["any", "cat_face"])
def test_another_domain_does_not_take_a_human_face(domain: str, astronaut: Image.Image) -> None:
    assert FaceFinder(domain).find(as_picture(astronaut)) == ()


def test_an_unknown_domain_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        FaceFinder("dog_face")
    assert (caught.value.field, caught.value.given) == ("domain", "dog_face")
    assert caught.value.allowed == "human_face, cat_face, any"


def test_a_missing_detector_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not found") as caught:
        FaceFinder(yunet=tmp_path / "yunet.onnx")
    assert (caught.value.field, caught.value.given) == ("face_detector", "yunet.onnx")


@pytest.mark.parametrize("content", [b"", b"not a network", bytes(4096)])
def test_a_wrong_detector_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "yunet.onnx").write_bytes(content)
    with pytest.raises(InvalidInput, match="not a YuNet") as caught:
        FaceFinder(yunet=tmp_path / "yunet.onnx")
    assert caught.value.field == "face_detector"


# Framing


def test_five_points_give_the_square_of_celeba_hq() -> None:
    side = 200.0
    places = [(100 + u * side, 50 + v * side) for u, v in ((0.375, 0.472), (0.625, 0.472), (0.5, 0.75))]
    corners = np.array(face_quad(Face((0, 0, 1, 1), 1, *places)))
    assert np.allclose(corners, [(100, 50), (100, 250), (300, 250), (300, 50)], atol=0.2)


def test_eyes_alone_give_nearly_the_same_square() -> None:
    corners = np.array(face_quad(Face((0, 0, 1, 1), 1, (175, 144.4), (225, 144.4))))
    assert np.allclose(corners, [(100, 50), (100, 250), (300, 250), (300, 50)], atol=1)


def test_a_box_alone_gives_an_upright_square_around_it() -> None:
    corners = np.array(face_quad(Face((0, 0, 100, 100), 1)))
    assert np.allclose(corners, [(-27.5, -34.5), (-27.5, 120.5), (127.5, 120.5), (127.5, -34.5)])


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_a_tilted_head_is_put_upright(finder: FaceFinder, astronaut: Image.Image, degrees: int) -> None:
    upright = align(as_picture(astronaut), 64, finder)
    tilted = astronaut.rotate(degrees, Image.Resampling.BICUBIC, center=(225, 125))
    assert difference(align(as_picture(tilted), 64, finder), upright) < 8  # its corners show what rotation left black


def test_the_eyes_come_to_their_canonical_place(finder: FaceFinder, astronaut: Image.Image) -> None:
    target = align(as_picture(astronaut), 256, finder)
    corner, down, right = (np.array(target.quad[i]) for i in (0, 1, 3))
    axes = np.column_stack([right - corner, down - corner])
    for there, place in zip(EYES_AND_MOUTH, ((0.375, 0.472), (0.625, 0.472), (0.5, 0.75)), strict=True):
        assert math.dist(np.linalg.solve(axes, np.array(there) - corner), place) < 0.04


def test_an_aligned_face_comes_back_nearly_unchanged(finder: FaceFinder, astronaut: Image.Image) -> None:
    first = align(as_picture(astronaut), 256, finder)
    again = align(as_picture(Image.fromarray(first.pixels)), 256, finder)
    assert difference(again, first) < 4
    assert np.allclose(again.box, (0, 0, 256, 256), atol=4)


def test_what_lies_outside_is_reflected_not_black(finder: FaceFinder, astronaut: Image.Image) -> None:
    cut = astronaut.crop((170, 75, 300, 220))  # hair and chin cut off
    target = align(as_picture(cut), 64, finder)
    assert target.box[1] < 0
    assert target.pixels[:4].mean() > 40


@pytest.mark.parametrize("size", [32, 64, 256, 512])
def test_any_size_shows_the_same(finder: FaceFinder, astronaut: Image.Image, size: int) -> None:
    target = align(as_picture(astronaut), size, finder)
    assert target.pixels.shape == (size, size, 3)
    assert target.pixels.dtype == np.uint8
    reference = align(as_picture(astronaut), 32, finder).pixels.astype(int)
    small = np.array(Image.fromarray(target.pixels).resize((32, 32), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(small - reference).mean() < 2


# The same selfie


def variants() -> dict[str, tuple[float, str, dict[str, Any]]]:
    """Name → size, kind, options of saving."""
    formats = {
        "jpeg": (1.0, "JPEG", {"quality": 90}),
        "webp": (1.0, "WEBP", {"quality": 90}),
        "heic": (1.0, "HEIF", {"quality": 90}),
    }
    return formats | {f"x{size}": (size, "JPEG", {"quality": 95}) for size in (0.5, 0.75, 2.0, 4.0)}


@pytest.mark.parametrize("name", variants())
def test_format_and_size_do_not_matter(finder: FaceFinder, astronaut: Image.Image, name: str) -> None:
    size, kind, options = variants()[name]
    other = astronaut.resize((round(512 * size),) * 2, Image.Resampling.LANCZOS)
    reference = align(decode(upload(astronaut)), 64, finder)
    assert difference(align(decode(upload(other, kind, **options)), 64, finder), reference) <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "HEIF"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 180), (6, 90), (8, 270)])
def test_how_the_camera_was_held_does_not_matter(
    finder: FaceFinder, astronaut: Image.Image, kind: str, orientation: int, turn: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    held = upload(astronaut.rotate(turn, expand=True), kind, exif=exif.tobytes(), quality=95)
    assert difference(align(decode(held), 64, finder), align(decode(upload(astronaut)), 64, finder)) <= 3


def test_transparency_around_does_not_matter(finder: FaceFinder, astronaut: Image.Image) -> None:
    reference = align(decode(upload(astronaut)), 64, finder)
    assert difference(align(decode(upload(astronaut.convert("RGBA"))), 64, finder), reference) == 0


# Choosing


def test_of_several_faces_the_largest_is_used_and_said(finder: FaceFinder, astronaut: Image.Image) -> None:
    target = align(as_picture(two_of(astronaut)), 64, finder)
    assert (target.face, len(target.faces), codes(target)) == (0, 2, ["several_faces"])
    assert target.box[0] > 256


def test_a_face_can_be_chosen(finder: FaceFinder, astronaut: Image.Image) -> None:
    target = align(as_picture(two_of(astronaut)), 64, finder, face=1)
    assert (target.face, codes(target)) == (1, [])
    assert target.box[2] < 256
    assert difference(target, align(as_picture(astronaut), 64, finder)) < 5


@pytest.mark.parametrize("face", [-1, 1, 7])
def test_a_face_that_is_not_there(finder: FaceFinder, astronaut: Image.Image, face: int) -> None:
    error = refusal(as_picture(astronaut), finder, face=face)
    assert (error.code, error.field, error.given, error.allowed) == ("out_of_range", "face", face, "0..0")


def test_a_face_where_none_was_found(finder: FaceFinder) -> None:
    assert refusal(as_picture(Image.new("RGB", (64, 64))), finder, face=0).code == "out_of_range"


def test_no_face_is_said_and_the_middle_is_used(finder: FaceFinder) -> None:
    coffee = as_picture(Image.fromarray(data.coffee()))
    target = align(coffee, 64, finder)
    assert (target.faces, target.face, codes(target)) == ((), None, ["no_face"])
    assert difference(target, align(coffee, 64, finder, align="center")) == 0


def test_a_model_of_no_faces_takes_the_middle_without_a_word(astronaut: Image.Image) -> None:
    target = align(as_picture(astronaut), 64, FaceFinder("any"))
    assert (target.box, target.warnings) == ((0, 0, 512, 512), ())


# By hand


def test_center_is_the_largest_square_in_the_middle(finder: FaceFinder) -> None:
    image = Image.new("RGB", (200, 100), "red")
    image.paste((0, 0, 255), (50, 0, 150, 100))
    target = align(as_picture(image), 16, finder, align="center")
    assert target.box == (50, 0, 150, 100)
    assert target.quad == ((50, 0), (50, 100), (150, 100), (150, 0))
    assert np.abs(target.pixels[:, 2:-2].astype(int) - (0, 0, 255)).max() <= 2  # a filter's reach from the edges
    assert target.warnings == ()


def test_none_leaves_a_square_picture_of_the_models_size_as_it_is(finder: FaceFinder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    target = align(as_picture(Image.fromarray(pixels)), 64, finder, align="none")
    assert (target.pixels == pixels).all()
    assert target.warnings == ()


def test_none_says_when_the_picture_is_not_square(finder: FaceFinder) -> None:
    target = align(as_picture(Image.new("RGB", (200, 100))), 16, finder, align="none")
    assert (target.box, codes(target)) == ((50, 0, 150, 100), ["not_square"])


@pytest.mark.parametrize(
    ("box", "used"),
    [
        ("10,20,60,70", (10, 20, 60, 70)),
        ("0,0,200,100", (50, 0, 150, 100)),
        (" 10.5, 20, 26.5 ,36", (10.5, 20, 26.5, 36)),
    ],
)
def test_a_box_is_cut_out_and_never_squashed(finder: FaceFinder, box: str, used: tuple[float, ...]) -> None:
    assert align(as_picture(Image.new("RGB", (200, 100))), 16, finder, align=box).box == used


def test_a_box_is_in_pixels_of_the_full_picture(finder: FaceFinder, astronaut: Image.Image) -> None:
    whole = align(as_picture(astronaut), 32, finder, align="100,50,300,250")
    reduced = align(Picture(astronaut, 1024, 1024), 32, finder, align="200,100,600,500")
    assert difference(whole, reduced) == 0


@pytest.mark.parametrize("box", ["-1,0,50,50", "0,0,201,100", "0,0,15,50", "50,0,10,50", "nan,0,50,50", "0,0,inf,50"])
def test_a_box_outside_the_picture(finder: FaceFinder, box: str) -> None:
    error = refusal(as_picture(Image.new("RGB", (200, 100))), finder, align=box)
    assert (error.code, error.field, error.given) == ("out_of_range", "align", box)
    assert "0,0,200,100" in (error.allowed or "")


@pytest.mark.parametrize("word", ["middle", "", "1,2,3", "1,2,3,4,5", "a,b,c,d"])
def test_an_unknown_align(finder: FaceFinder, word: str) -> None:
    error = refusal(as_picture(Image.new("RGB", (200, 100))), finder, align=word)
    assert (error.code, error.field, error.given) == ("unknown_value", "align", word)


def test_a_face_is_not_asked_for_with_another_align(finder: FaceFinder) -> None:
    assert refusal(as_picture(Image.new("RGB", (200, 100))), finder, align="center", face=0).field == "face"
