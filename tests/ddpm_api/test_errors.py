"""Errors: one shape, and a status for every code."""

from __future__ import annotations

import json

import pytest

from ddpm_api import ApiError, Error, ErrorBody, InvalidRequest


def test_an_error_has_the_shape_of_the_contract() -> None:
    error = Error(code="out_of_range", message="Too many.", field="num_images", given=99, allowed="1..16")
    assert json.loads(ErrorBody(error=error).to_json()) == {
        "error": {
            "code": "out_of_range",
            "message": "Too many.",
            "field": "num_images",
            "given": 99,
            "allowed": "1..16",
        }
    }


def test_what_does_not_apply_is_null() -> None:
    body = json.loads(ApiError(Error(code="busy", message="Full.", retry_after=3)).body.to_json())
    assert body == {"error": {"code": "busy", "message": "Full.", "field": None, "given": None, "allowed": None}}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("malformed_json", 400),
        ("unauthorized", 401),
        ("not_found", 404),
        ("not_acceptable", 406),
        ("too_large", 413),
        ("too_many_pixels", 413),
        ("too_costly", 413),
        ("not_an_image", 415),
        ("unsupported_media_type", 415),
        ("out_of_range", 422),
        ("wrong_type", 422),
        ("too_much_work", 422),
        ("rate_limited", 429),
        ("internal", 500),
        ("busy", 503),
    ],
)
def test_the_code_decides_the_status(code: str, status: int) -> None:
    assert Error(code=code, message="").status == status
    assert InvalidRequest(code, "").status == status


def test_an_invalid_request_is_a_value_error_that_says_its_message() -> None:
    with pytest.raises(ValueError, match=r"^Too many\.$"):
        raise InvalidRequest("out_of_range", "Too many.")
