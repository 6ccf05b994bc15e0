"""What a form can offer: the bounds and defaults of the numbers in a request."""

from __future__ import annotations

from ddpm_api.request import FACES, GenerateRequest


def numbers() -> dict[str, dict[str, float]]:
    """Every field that holds a number, with its `minimum`, `maximum` and `default` where it has one.

    The default of `num_images` is that of a request with a selfie.
    """
    told = ("minimum", "maximum", "default")
    properties = GenerateRequest.model_json_schema()["properties"]
    found = {
        name: {key: field[key] for key in told if key in field}
        for name, field in properties.items()
        if field.get("type") in ("integer", "number")
    }
    found["num_images"]["default"] = FACES
    return found
