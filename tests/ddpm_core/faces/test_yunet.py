"""A supplied YuNet file takes the place of the cascades; here a toy one, written by hand, that finds red cells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import FaceFinder, Picture

SIDE = 640
# In cells from the upper left corner of the red one: the box's middle and ln size; five points, right eye first.
BOX = (0.5, 0.5, np.log(8), np.log(10))
POINTS = (-1.0, -1.0, 2.0, -1.0, 0.5, 0.5, -0.5, 2.0, 1.5, 2.0)


def field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    body = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    head = b""
    while value > 127:
        head += bytes([value & 127 | 128])
        value >>= 7
    return head + bytes([value])


def node(kind: str, inputs: Iterable[str], output: str, **attributes: list[int]) -> bytes:
    body = b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, kind)
    for name, values in attributes.items():
        body += field(5, field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7))
    return field(1, body)


def constant(name: str, values: np.ndarray) -> bytes:
    kind = 7 if values.dtype == np.int64 else 1
    dims = b"".join(field(1, size) for size in values.shape)
    return field(5, dims + field(2, kind) + field(8, name) + field(9, values.tobytes()))


def tensor(number: int, name: str, shape: Iterable[int]) -> bytes:
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, dims))))


def toy_yunet() -> bytes:
    """YuNet's twelve outputs: cells of 8 px are faces as far as they are red; the coarser ones never are."""
    graph = b""
    for head, bias in (("cls", (0.0,)), ("obj", (0.0,)), ("bbox", BOX), ("kps", POINTS)):
        for stride in (8, 16, 32):
            name, cells = f"{head}_{stride}", (SIDE // stride) ** 2
            weights = np.zeros((len(bias), 3, stride, stride), np.float32)
            if len(bias) == 1 and stride == 8:
                weights[:, 2], weights[:, 0] = 1 / 64 / 255, -1 / 64 / 255  # blue comes first
            graph += constant(f"{name}.w", weights) + constant(f"{name}.b", np.array(bias, np.float32))
            graph += constant(f"{name}.s", np.array([1, cells, len(bias)], np.int64))
            graph += node(
                "Conv",
                ("input", f"{name}.w", f"{name}.b"),
                f"{name}.c",
                kernel_shape=[stride] * 2,
                strides=[stride] * 2,
            )
            graph += node("Transpose", (f"{name}.c",), f"{name}.t", perm=[0, 2, 3, 1])
            graph += node("Reshape", (f"{name}.t", f"{name}.s"), name) + tensor(12, name, (1, cells, len(bias)))
    graph += tensor(11, "input", (1, 3, SIDE, SIDE)) + field(2, "toy")
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> FaceFinder:
    path = tmp_path_factory.mktemp("yunet") / "toy.onnx"
    path.write_bytes(toy_yunet())
    return FaceFinder(yunet=path)


def red_cells(*corners: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE))
    for x, y in corners:
        image.paste((255, 0, 0), (x, y, x + 8, y + 8))
    return image


def test_its_points_are_used_left_eye_of_the_image_first(finder: FaceFinder) -> None:
    (face,) = finder.find(Picture(red_cells((320, 160)), SIDE, SIDE))
    assert np.allclose(face.box, (324 - 32, 164 - 40, 324 + 32, 164 + 40), atol=0.01)
    assert face.left_eye == pytest.approx((312, 152))
    assert face.right_eye == pytest.approx((336, 152))
    assert face.mouth == pytest.approx((324, 176))
    assert face.score == pytest.approx(1, abs=0.01)


def test_coordinates_are_those_of_the_full_picture(finder: FaceFinder) -> None:
    picture = Picture(red_cells((320, 160)).resize((1280, 1280), Image.Resampling.NEAREST), 2560, 2560)
    (face,) = finder.find(picture)
    assert face.left_eye == pytest.approx((4 * 312, 4 * 152))
    assert face.score == pytest.approx(1, abs=0.01)


def test_several_faces(finder: FaceFinder) -> None:
    assert len(finder.find(Picture(red_cells((160, 160), (400, 400)), SIDE, SIDE))) == 2


def test_blue_is_not_taken_for_red(finder: FaceFinder) -> None:
    assert finder.find(Picture(Image.new("RGB", (SIDE, SIDE), "blue"), SIDE, SIDE)) == ()


def test_a_network_that_is_no_yunet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(toy_yunet().replace(b"kps_8", b"abc_8"))
    with pytest.raises(InvalidInput, match="not a YuNet"):
        FaceFinder(yunet=tmp_path / "other.onnx")
