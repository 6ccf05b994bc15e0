"""The request as a whole: rules across fields, its shapes, and junk."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from ddpm_api import (
    Align,
    GenerateRequest,
    InvalidRequest,
    OutputFormat,
    parse_form,
    parse_json,
    parse_raw,
)

from .asking import BASE64, PICTURE, refusal

# --- rules across fields ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("mode", mode) for mode in ("auto", "faithful", "likeness", "celebrity", "pixel")],
        ("resemblance", 0.5),
        ("align", "center"),
        ("align", "0,0,5,5"),
        ("face", 0),
        ("return_target", True),
        ("detect_only", True),
    ],
)
def test_what_needs_a_selfie_is_refused_without_one(field: str, value: Any) -> None:
    error = refusal(parse_json, {field: value})
    assert (error["code"], error["field"], error["given"]) == ("image_required", field, value)


@pytest.mark.parametrize(("field", "value"), [("align", "auto"), ("return_target", False), ("mode", "none")])
def test_what_asks_for_nothing_of_the_selfie_is_taken_without_one(field: str, value: Any) -> None:
    assert parse_json({field: value}).image is None


CONFLICTS = [
    ({"mode": "pixel", "sampler": "dpmpp_2m"}, "sampler"),
    ({"mode": "pixel", "sampler": "ddpm"}, "sampler"),
    ({"mode": "pixel", "resemblance": 0.5}, "resemblance"),
    ({"mode": "none", "resemblance": 0.5}, "resemblance"),
    ({"mode": "likeness", "guidance_loss_scale": 10}, "guidance_loss_scale"),
    ({"guidance_loss_scale": 10}, "guidance_loss_scale"),
    ({"eta": 0.5}, "eta"),
    ({"eta": 0.5, "sampler": "ddpm"}, "eta"),
    ({"eta": 0.5}, "eta"),
    ({"mode": "pixel", "guide": 1.5}, "guide"),
    ({"eta": 0.5, "mode": "pixel"}, "eta"),
    ({"mode": "none", "num_images": 2, "best_of": 4}, "best_of"),
]


@pytest.mark.parametrize(("fields", "field"), CONFLICTS)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], field: str) -> None:
    error = refusal(parse_json, {"image": BASE64, **fields})
    assert (error["code"], error["field"], error["given"]) == ("conflict", field, fields[field])


def test_unguided_pictures_are_not_ranked() -> None:
    assert refusal(parse_json, {"num_images": 2, "best_of": 4})["field"] == "best_of"


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "pixel", "guidance_loss_scale": 0, "sampler": "ddim"},
        {"sampler": "ddim", "eta": 1},
        {"mode": "auto", "resemblance": 0.1},
        {"num_images": 2, "best_of": 4},
        {"mode": "celebrity", "guidance_loss_scale": 50.0, "eta": 0.0},
    ],
)
def test_what_agrees_is_taken_without_a_warning(fields: dict[str, Any]) -> None:
    assert parse_json({"image": BASE64, **fields}).warnings == ()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"mode": "none"}, "image"),
        ({"mode": "likeness", "resemblance": 0.9}, "mode likeness"),
        ({"detect_only": True, "seed": 1, "num_images": 2}, "num_images, seed"),
    ],
)
def test_what_has_no_effect_is_a_warning(fields: dict[str, Any], word: str) -> None:
    (notice,) = parse_json({"image": BASE64, **fields}).warnings
    assert notice.code == "no_effect"
    assert notice.message.startswith(word)


def test_faces_can_be_looked_for_without_a_warning() -> None:
    assert parse_json({"image": BASE64, "detect_only": True, "face": 0}).warnings == ()


# --- shapes of the whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [[], [{}], "text", "", 5, 0.5, True, None])
def test_a_json_document_is_an_object(document: Any) -> None:
    error = refusal(parse_json, document)
    assert (error["code"], error["field"]) == ("wrong_type", None)


@pytest.mark.parametrize("body", [b"", b"{", bytearray(b"not json")])
def test_json_that_did_not_parse_is_a_bad_request(body: bytes) -> None:
    assert refusal(parse_json, body)["code"] == "malformed_json"


def test_an_empty_form_is_refused() -> None:
    assert refusal(parse_form, {})["code"] == "empty_form"


def test_a_form_without_a_picture_is_unguided() -> None:
    assert parse_form({"num_images": bytearray(b"3"), "output_format": b"jpeg"}).num_images == 3


@pytest.mark.parametrize(
    ("name", "near"), [("num_image", "num_images"), ("Seed", "seed"), ("steps", None), ("resemblence", "resemblance")]
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(name: str, near: str | None) -> None:
    for parse, given in ((parse_json, {name: 1}), (parse_form, {name: b"1"})):
        error = refusal(parse, given)
        assert (error["code"], error["field"], error["given"]) == ("unknown_field", name, name)
        assert error["allowed"] == ", ".join(GenerateRequest.model_fields)
        assert (f"Did you mean {near}?" in error["message"]) if near else ("Did you mean" not in error["message"])
    assert refusal(parse_raw, PICTURE, {name: "1"})["field"] == name


@pytest.mark.parametrize("name", ["", "x" * 10**6, "\ud800", "a\r\nSet-Cookie: b", "🙂"])
def test_a_name_that_is_none_is_not_repeated(name: str) -> None:
    assert refusal(parse_json, {name: 1})["field"] == f"a name of {len(name)} characters"


def test_only_the_first_of_many_errors_is_answered() -> None:
    many = {"num_images": 0, "mode": "x", "eta": 7, **{f"f{i}": 1 for i in range(100_000)}}
    assert refusal(parse_json, many)["code"] == "unknown_field"


def test_the_published_schema_says_what_is_accepted() -> None:
    schema = GenerateRequest.model_json_schema()
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    properties = schema["properties"]
    assert list(properties) == list(GenerateRequest.model_fields)
    assert "null" not in json.dumps(properties)
    assert (properties["num_images"]["minimum"], properties["num_images"]["maximum"]) == (1, 16)
    assert (properties["resemblance"]["type"], properties["face"]["type"]) == ("number", "integer")


# --- junk -------------------------------------------------------------------------------------------------------------


ATOMS = [None, True, False, 0, 1, -1, 5, 17, 2**32, 10**30, 0.5, 1e308, math.nan, math.inf, "", "auto", "pixel", "ddim"]
ATOMS += [
    "1,2,3,4",
    "5",
    "nan",
    "\ud800",
    "\0",
    BASE64,
    "x" * 200,
    [],
    {},
    [1],
    {"image": 1},
    b"",
    b"\xff\xfe",
    bytearray(b"5"),
]


def outcome(parse: Any, *given: Any) -> str:
    """`taken`, or the code of the refusal; both must be fit to be sent."""
    try:
        request = parse(*given)
    except InvalidRequest as problem:
        answer = problem.body.to_json()
        if len(answer) > 1500:
            pytest.fail(f"a long answer: {len(answer)} bytes")
        return str(json.loads(answer)["error"]["code"])
    json.dumps(request.parameters(), allow_nan=False)
    return "taken"


def test_whatever_is_sent_is_a_request_or_a_refusal() -> None:
    luck = random.Random(0)
    names = [*GenerateRequest.model_fields, "data", "body", "x", "", "\udfff"]
    outcomes = set()
    for _ in range(4000):
        junk = {luck.choice(names): luck.choice(ATOMS) for _ in range(luck.randrange(4))}
        form = {name: value for name, value in junk.items() if isinstance(value, str | bytes | bytearray)}
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        outcomes |= {outcome(parse_json, junk), outcome(parse_form, form)}
        outcomes.add(outcome(parse_raw, luck.choice([b"", PICTURE]), texts))
    assert outcomes >= {"taken", "out_of_range", "wrong_type", "unknown_value", "unknown_field", "conflict"}
    assert outcomes >= {"image_required", "empty_image", "not_base64", "empty_form"}


def test_enums_are_the_contract() -> None:
    assert [*map(str, OutputFormat)] == ["png", "jpeg", "webp"]
    assert [*map(str, Align)] == ["auto", "center", "none"]
