"""The request: what may be given, what it defaults to, and how everything else is refused."""

from __future__ import annotations

import base64
import json
import math
import random
from typing import Any

import pytest

from ddpm_api import (
    Align,
    Box,
    GenerateRequest,
    InvalidRequest,
    Mode,
    OutputFormat,
    Sampler,
    parse_form,
    parse_json,
    parse_raw,
)

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
BASE64 = base64.b64encode(PICTURE).decode()


def refusal(parse: Any, *given: Any) -> dict[str, Any]:
    """The error object that something is answered with."""
    with pytest.raises(InvalidRequest) as caught:
        parse(*given)
    body = json.loads(caught.value.body.to_json())
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field", "given", "allowed"}
    assert 400 <= caught.value.status < 500
    return body["error"]


# --- defaults -------------------------------------------------------------------------------------------------------


def test_without_an_image_one_unguided_picture_is_asked_for() -> None:
    assert parse_json({}).parameters() == {
        "num_images": 1,
        "mode": "none",
        "resemblance": None,
        "sampler": "dpmpp_2m",
        "num_inference_steps": None,
        "eta": 0.0,
        "guidance_loss_scale": 50.0,
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


def test_the_pixel_mode_samples_with_ddim_unless_told_otherwise() -> None:
    assert parse_json({"image": BASE64, "mode": "pixel"}).sampler is Sampler.DDIM


def test_best_of_follows_the_number_of_images() -> None:
    assert parse_json({"image": BASE64, "num_images": 3}).best_of == 3


def test_what_was_given_can_be_told_from_what_was_filled_in() -> None:
    assert parse_json({"num_images": 1}).model_fields_set == {"num_images"}


def test_parameters_are_json_values() -> None:
    request = parse_form({"image": PICTURE, "align": "1.5,2,30,40", "mode": "celebrity", "output_format": "webp"})
    assert json.loads(json.dumps(request.parameters())) == request.parameters()
    assert request.parameters()["align"] == "1.5,2,30,40"


# --- ranges ---------------------------------------------------------------------------------------------------------

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
    *[("sampler", bad, "unknown_value", "ddpm, ddim, dpmpp_2m") for bad in ("", "euler", "DDIM")],
    ("sampler", 3, "wrong_type", "ddpm, ddim, dpmpp_2m"),
    *[("num_inference_steps", bad, "out_of_range", "1 or more") for bad in (0, -5)],
    *[("num_inference_steps", bad, "wrong_type", "an integer, 1 or more") for bad in (1.0, "10", False, math.inf)],
    *[("eta", bad, "out_of_range", "0..1") for bad in (-1e-9, 1.1, math.nan, math.inf)],
    *[("guidance_loss_scale", bad, "out_of_range", "0..1000") for bad in (-1, 1001, 1e300, math.inf, math.nan)],
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


# --- crop boxes -----------------------------------------------------------------------------------------------------


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


# --- the picture ----------------------------------------------------------------------------------------------------


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


# --- rules across fields --------------------------------------------------------------------------------------------


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


# --- shapes of the whole --------------------------------------------------------------------------------------------


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


# --- junk -----------------------------------------------------------------------------------------------------------

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
