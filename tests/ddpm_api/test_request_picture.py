"""The request's picture and its crop box: what is taken and how everything else is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ddpm_api import (
    Box,
    InvalidRequest,
    parse_form,
    parse_json,
    parse_raw,
)

from .asking import BASE64, PICTURE, refusal

# --- crop boxes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("0,0,10,20", Box(0, 0, 10, 20)),
        (" 1 , 2 , 3 , 4 ", Box(1, 2, 3, 4)),
        ("-5,-5.5,10.25,20", Box(-5, -5.5, 10.25, 20)),
    ],
)
def test_a_crop_box_is_four_edges(text: str, box: Box) -> None:
    assert parse_json({"image": BASE64, "align": text}).align == box
    assert parse_form({"image": PICTURE, "align": text}).align == box


@pytest.mark.parametrize("text", ["10,0,10,20", "0,20,10,20", "5,0,1,20", "0,5,10,1", "0,0,0,0"])
def test_a_crop_box_has_an_area(text: str) -> None:
    error = refusal(parse_json, {"image": BASE64, "align": text})
    assert (error["code"], error["field"], error["given"]) == ("out_of_range", "align", text)


@pytest.mark.parametrize(
    "text", ["", "Auto", "0,0,10", "0,0,10,20,30", "0;0;10;20", "a,b,c,d", "nan,0,1,1", "0,0,inf,1", "0,0,1e3,1", ",,,"]
)
def test_other_texts_are_no_alignment(text: str) -> None:
    error = refusal(parse_json, {"image": BASE64, "align": text})
    assert (error["code"], error["field"]) == ("unknown_value", "align")
    assert "left,top,right,bottom" in error["allowed"]


@pytest.mark.parametrize("value", [0, True, [0, 0, 1, 1], {"left": 0}])
def test_an_alignment_is_a_text(value: Any) -> None:
    assert refusal(parse_json, {"image": BASE64, "align": value})["code"] == "wrong_type"


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image", "data", "body"])
def test_the_picture_goes_by_three_names(name: str) -> None:
    assert parse_json({name: BASE64}).image == PICTURE
    assert parse_form({name: bytearray(PICTURE)}).image == PICTURE


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        f"data:image/png;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"DATA:image/jpeg;name=x;BASE64,{BASE64}",
        base64.encodebytes(PICTURE).decode(),
    ],
)
def test_json_carries_the_picture_as_base64_or_data_url(text: str) -> None:
    assert parse_json({"image": text}).image == PICTURE


@pytest.mark.parametrize(
    "text",
    ["%%%", BASE64[:-3], "data:image/png," + BASE64, "data:image/png;base64", "http://x/y.png", "é", "\ud800", "a-_b"],
)
def test_a_text_that_is_not_base64_is_refused(text: str) -> None:
    assert refusal(parse_json, {"image": text})["code"] == "not_base64"


@pytest.mark.parametrize("text", ["", " ", "data:image/png;base64,"])
def test_an_empty_picture_is_refused(text: str) -> None:
    assert refusal(parse_json, {"image": text})["code"] == "empty_image"
    assert refusal(parse_form, {"image": b""})["code"] == "empty_image"
    assert refusal(parse_raw, b"")["code"] == "empty_image"


@pytest.mark.parametrize("value", [5, True, 0.5, [BASE64], {"b64_json": BASE64}])
def test_a_picture_is_bytes_or_text(value: Any) -> None:
    error = refusal(parse_json, {"image": value})
    assert (error["code"], error["field"]) == ("wrong_type", "image")
    assert BASE64[:20] not in json.dumps(error)


def test_a_form_carries_the_picture_as_a_file() -> None:
    assert refusal(parse_form, {"image": BASE64})["code"] == "wrong_type"


def test_two_pictures_are_refused() -> None:
    assert refusal(parse_json, {"image": BASE64, "data": BASE64})["code"] == "conflict"
    assert refusal(parse_form, {"data": PICTURE, "body": PICTURE})["code"] == "conflict"
    assert refusal(parse_raw, PICTURE, {"image": "x"})["code"] == "conflict"


LEAKS = [
    (parse_json, {"image": "!" + BASE64}),
    (parse_json, {"img": BASE64}),
    (parse_json, {BASE64: 1}),
    (parse_json, {"mode": BASE64}),
    (parse_json, {"align": BASE64}),
    (parse_json, BASE64),
    (parse_json, PICTURE),
    (parse_json, [BASE64]),
    (parse_json, {"image": BASE64, "num_images": 99}),
    (parse_json, {"image": BASE64, "best_of": 2}),
    (parse_form, {"image": BASE64}),
    (parse_form, {"mode": PICTURE}),
    (parse_form, {"seed": PICTURE}),
    (parse_form, {PICTURE.decode("latin-1"): b""}),
    (parse_form, {"image": PICTURE, "seed": "x"}),
]


@pytest.mark.parametrize(("parse", "given"), LEAKS, ids=range(len(LEAKS)))
def test_nothing_of_a_picture_is_in_an_error_or_its_traceback(parse: Any, given: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(given)
    problem: BaseException | None = caught.value
    while problem is not None:
        told = f"{problem!r} {problem} {caught.value.body.to_json()!r}"
        assert BASE64[:24] not in told
        assert "PNG" not in told
        problem = problem.__cause__ or problem.__context__


def test_a_request_does_not_show_its_picture() -> None:
    assert "image=" not in repr(parse_raw(PICTURE)) + str(parse_raw(PICTURE))
    assert "image" not in parse_raw(PICTURE).parameters()
