"""The request: what may be given, what it defaults to, and the range of every field."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ddpm_api import (
    GenerateRequest,
    Mode,
    parse_form,
    parse_json,
    parse_raw,
)

from .asking import BASE64, PICTURE, refusal

# --- defaults ---------------------------------------------------------------------------------------------------------


def test_without_an_image_one_unguided_picture_is_asked_for() -> None:
    assert parse_json({}).parameters() == {
        "num_images": 1,
        "mode": "none",
        "resemblance": None,
        "sampler": None,
        "num_inference_steps": None,
        "eta": 0.0,
        "guidance_loss_scale": 50.0,
        "guide": None,
        "seed": -1,
        "align": "auto",
        "face": None,
        "best_of": 1,
        "preview_every": 0,
        "return_target": False,
        "detect_only": False,
        "output_format": "png",
    }


def test_with_an_image_five_guided_pictures_are_asked_for() -> None:
    request = parse_raw(PICTURE)
    assert request.image == PICTURE
    assert (request.num_images, request.mode, request.best_of) == (5, Mode.AUTO, 5)
    assert request.warnings == ()


def test_best_of_follows_the_number_of_images() -> None:
    assert parse_json({"image": BASE64, "num_images": 3}).best_of == 3


def test_what_was_given_can_be_told_from_what_was_filled_in() -> None:
    assert parse_json({"num_images": 1}).model_fields_set == {"num_images"}


def test_parameters_are_json_values() -> None:
    request = parse_form({"image": PICTURE, "align": "1.5,2,30,40", "mode": "celebrity", "output_format": "webp"})
    assert json.loads(json.dumps(request.parameters())) == request.parameters()
    assert request.parameters()["align"] == "1.5,2,30,40"


# --- ranges -----------------------------------------------------------------------------------------------------------


ACCEPTED = [
    ("num_images", 1),
    ("num_images", 16),
    ("mode", "auto"),
    ("mode", "faithful"),
    ("mode", "likeness"),
    ("mode", "celebrity"),
    ("mode", "pixel"),
    ("mode", "none"),
    ("resemblance", 0),
    ("resemblance", 0.5),
    ("resemblance", 1.0),
    ("sampler", "ddpm"),
    ("sampler", "ddim"),
    ("sampler", "dpmpp_2m"),
    ("num_inference_steps", 1),
    ("num_inference_steps", 1000),
    ("guide", 1),
    ("guide", 1.5),
    ("guide", 3),
    ("seed", -1),
    ("seed", 0),
    ("seed", 2**32 - 1),
    ("align", "auto"),
    ("align", "center"),
    ("align", "none"),
    ("face", 0),
    ("face", 7),
    ("best_of", 5),
    ("best_of", 16),
    ("preview_every", 0),
    ("preview_every", 3),
    ("return_target", True),
    ("detect_only", True),
    ("output_format", "png"),
    ("output_format", "jpeg"),
    ("output_format", "webp"),
]


@pytest.mark.parametrize(("field", "value"), ACCEPTED)
def test_every_value_in_range_is_taken_from_json_and_as_text_from_form_and_query(field: str, value: Any) -> None:
    text = json.dumps(value) if not isinstance(value, str) else value
    from_json = parse_json({"image": BASE64, field: value})
    assert getattr(from_json, field) == value
    assert parse_form({"image": bytearray(PICTURE), field: bytearray(text.encode())}) == from_json
    assert parse_form({"data": PICTURE, field: text}) == from_json
    assert parse_raw(PICTURE, {field: text}) == from_json


REFUSED = [
    *[("num_images", bad, "out_of_range", "1..16") for bad in (0, -1, 17, 99, 10**5000)],
    *[("num_images", bad, "wrong_type", "an integer, 1..16") for bad in (True, 5.0, 5.5, "5", "", [], {}, math.nan)],
    ("num_images", None, "wrong_type", "1..16"),
    *[
        ("mode", bad, "unknown_value", "auto, faithful, likeness, celebrity, pixel, none")
        for bad in ("", "Auto", "auto ", "likenes", "x" * 10**6, "\ud800", "a\nb\0")
    ],
    *[
        ("mode", bad, "wrong_type", "auto, faithful, likeness, celebrity, pixel, none")
        for bad in (1, True, [], {}, 0.5)
    ],
    *[("resemblance", bad, "out_of_range", "0..1") for bad in (-0.01, 1.01, math.nan, math.inf, -math.inf, 2)],
    *[("resemblance", bad, "wrong_type", "a number, 0..1") for bad in (True, "0.5", [], {}, 10**400)],
    *[("sampler", bad, "unknown_value", "ddpm, ddim, dpmpp_2m, lcm") for bad in ("", "euler", "DDIM")],
    ("sampler", 3, "wrong_type", "ddpm, ddim, dpmpp_2m, lcm"),
    *[("num_inference_steps", bad, "out_of_range", "1 or more") for bad in (0, -5)],
    *[("num_inference_steps", bad, "wrong_type", "an integer, 1 or more") for bad in (1.0, "10", False, math.inf)],
    *[("eta", bad, "out_of_range", "0..1") for bad in (-1e-9, 1.1, math.nan, math.inf)],
    *[("guidance_loss_scale", bad, "out_of_range", "0..1000") for bad in (-1, 1001, 1e300, math.inf, math.nan)],
    *[("guide", bad, "out_of_range", "1..3") for bad in (0, 0.99, 3.01, math.nan, math.inf)],
    *[("guide", bad, "wrong_type", "a number, 1..3") for bad in (True, "1.5", [])],
    *[("seed", bad, "out_of_range", "-1 (random) or 0..4294967295") for bad in (-2, 2**32, 2**64, -(10**5000))],
    *[("seed", bad, "wrong_type", "an integer, -1 (random) or 0..4294967295") for bad in (1.5, "7", True, [1])],
    *[("face", bad, "out_of_range", "0 or more") for bad in (-1, -(2**70))],
    *[("face", bad, "wrong_type", "an integer, 0 or more") for bad in (0.0, "0", False)],
    *[("best_of", bad, "out_of_range", "1..16") for bad in (0, 17)],
    ("best_of", 4, "out_of_range", "5..16"),
    ("preview_every", -1, "out_of_range", "0 or more"),
    *[("return_target", bad, "wrong_type", "true or false") for bad in (0, 1, "true", "yes", [], 1.0)],
    *[("detect_only", bad, "wrong_type", "true or false") for bad in (0, 1, "true", "yes", [], 1.0)],
    *[("output_format", bad, "unknown_value", "png, jpeg, webp") for bad in ("jpg", "PNG", "image/png", "gif")],
]


def name_of(value: Any) -> str:
    return f"huge{type(value).__name__}" if isinstance(value, int | str) and abs(hash(value)) > 10**12 else repr(value)


@pytest.mark.parametrize(("field", "value", "code", "allowed"), REFUSED, ids=lambda value: name_of(value)[:40])
def test_every_other_value_is_refused_by_name_with_what_is_allowed(
    field: str, value: Any, code: str, allowed: str
) -> None:
    error = refusal(parse_json, {"image": BASE64, field: value})
    assert (error["code"], error["field"], error["allowed"]) == (code, field, allowed)
    assert field in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize("field", sorted(GenerateRequest.model_fields))
def test_null_is_no_value(field: str) -> None:
    assert refusal(parse_json, {field: None})["code"] == "wrong_type"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (99, 99),
        (True, True),
        ("5", "5"),
        (5.5, 5.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (10**5000, "an integer of 16610 bits"),
        ("y" * 81, "a text of 81 characters"),
        ("a\nb", "a\\nb"),
        ("\ud800", "\\ud800"),
        ([1, 2], "a list of 2 values"),
        ({"a": 1}, "an object of 1 fields"),
    ],
    ids=lambda value: name_of(value)[:40],
)
def test_what_was_given_is_repeated_in_short(value: Any, said: Any) -> None:
    assert refusal(parse_json, {"num_images": value})["given"] == said


@pytest.mark.parametrize(
    "text", ["", " ", "five", "5.0", "5e0", "0x5", "1_0", "٣", "9" * 5000, "--5", "+", "NaN", "5,5", "5\n5"]
)
def test_text_that_is_no_integer_is_refused(text: str) -> None:
    assert refusal(parse_form, {"num_images": text})["code"] == "wrong_type"
    assert refusal(parse_raw, PICTURE, {"num_images": text})["code"] == "wrong_type"


@pytest.mark.parametrize(("text", "number"), [("5", 5), (" 5\n", 5), ("+5", 5), ("05", 5)])
def test_text_of_an_integer_is_one(text: str, number: int) -> None:
    assert parse_form({"num_images": text}).num_images == number


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("1", 1), (".5", 0.5), ("5e-1", 0.5), ("1.", 1), ("+0.25", 0.25)]
)
def test_text_of_a_number_is_one(text: str, number: float) -> None:
    assert parse_raw(PICTURE, {"resemblance": text}).resemblance == number


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *[(text, "out_of_range") for text in ("nan", "inf", "-Infinity", "1e999", "-0.1", "1.1")],
        *[(text, "wrong_type") for text in ("", "half", "0,5", "1_0", "0x1", "e5", ".", "1" * 100, "none")],
    ],
)
def test_text_of_another_number_is_refused(text: str, code: str) -> None:
    assert refusal(parse_raw, PICTURE, {"resemblance": text})["code"] == code


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False)])
def test_text_of_a_truth_value_is_one(text: str, value: bool) -> None:
    assert parse_form({"image": PICTURE, "return_target": text}).return_target is value


@pytest.mark.parametrize("text", ["", "yes", "on", "2", "tru"])
def test_text_of_no_truth_value_is_refused(text: str) -> None:
    assert refusal(parse_form, {"image": PICTURE, "return_target": text})["allowed"] == "true or false"
