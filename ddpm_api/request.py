"""The request: its fields, defaults, ranges and rules, and how each transport's input becomes one.

What contradicts itself is refused; what merely has no effect is a warning on the request. Nothing is clamped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import NoneType
from typing import Any, Self, get_args

import annotated_types
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from ddpm_api.errors import InvalidRequest, refused, shown_name
from ddpm_api.fields import (
    ALIGN_ALLOWED,
    IMAGE_ALLOWED,
    Align,
    Alignment,
    Box,
    Flag,
    Integer,
    Mode,
    Number,
    OutputFormat,
    Picture,
    Sampler,
    from_text,
    without_null,
)
from ddpm_api.shapes import Notice

PICTURE_NAMES = ("image", "image[]", "data", "body")
"""What the picture's field may be called."""
MAX_IMAGES = 16
MAX_SEED = 2**32 - 1
FACES = 5  # unless said, with a selfie
S0_SCALE = 50.0  # of the pixel guidance, as the Hugging Face course has it


class GenerateRequest(BaseModel):
    """One request, checked and complete but for what only the model knows (None there).

    Make it by `parse_json`, `parse_form` or `parse_raw`, which raise nothing but `InvalidRequest`.
    `model_fields_set` tells what was given.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # the input may be a picture
        json_schema_extra=without_null,
    )

    image: Picture | None = Field(None, repr=False, description="the selfie; absent = unguided")
    num_images: Integer = Field(
        default_factory=lambda given: 1 if given["image"] is None else FACES,
        ge=1,
        le=MAX_IMAGES,
        description=f"{FACES} with a selfie, 1 without",
    )
    mode: Mode = Field(
        default_factory=lambda given: Mode.NONE if given["image"] is None else Mode.AUTO,
        description="auto with a selfie, none without",
    )
    resemblance: Number | None = Field(None, ge=0, le=1, description="0 celebrity-like … 1 like the selfie; by mode")
    sampler: Sampler | None = Field(None, description="by model; with mode pixel ddim")
    num_inference_steps: Integer | None = Field(
        None, ge=1, description="network calls, at most the start level; by mode"
    )
    eta: Number = Field(0.0, ge=0, le=1, description="noise added back on the way, for the sampler ddim")
    guidance_loss_scale: Number = Field(S0_SCALE, ge=0, le=1000, description="strength of the mode pixel")
    guide: Number | None = Field(
        None, ge=1, le=3, description="how far a worse network pushes to whole faces; 1 = not; by model"
    )
    seed: Integer = Field(-1, ge=-1, le=MAX_SEED, description="-1 = random, reported; image i uses seed + i")
    align: Alignment = Field(Align.AUTO, description="how the face is brought into place")
    face: Integer | None = Field(None, ge=0, description="index into the faces found; absent = the largest")
    best_of: Integer = Field(
        default_factory=lambda given: given["num_images"],
        ge=1,
        le=MAX_IMAGES,
        description="make so many, keep the best num_images; absent = num_images",
    )
    preview_every: Integer = Field(0, ge=0, description="network calls between previews in a stream; 0 = none")
    return_target: Flag = Field(False, description="give the aligned selfie back")
    detect_only: Flag = Field(False, description="answer the faces found, generate nothing")
    output_format: OutputFormat = Field(OutputFormat.PNG, description="file format of the pictures")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.image is None:
            self._needs_no_image()
        if self.mode is Mode.PIXEL and self.sampler not in (None, Sampler.DDIM):
            raise _conflict("sampler", self.sampler, "mode pixel works with the sampler ddim only", "ddim")
        if self.mode in {Mode.NONE, Mode.PIXEL} and self.resemblance is not None:
            curve = "auto, faithful, likeness, celebrity"
            raise _conflict("resemblance", self.resemblance, f"mode {self.mode} has no resemblance", f"modes {curve}")
        if self.mode is not Mode.PIXEL and self.guidance_loss_scale != S0_SCALE:
            given = self.guidance_loss_scale
            raise _conflict("guidance_loss_scale", given, f"mode {self.mode} does not use it", "mode pixel")
        if self.eta != 0.0 and (self.sampler is not Sampler.DDIM or self.mode is Mode.PIXEL):
            usual = f"mode {self.mode}" if self.sampler is None else f"the sampler {self.sampler}"
            user = "mode pixel" if self.mode is Mode.PIXEL else usual
            raise _conflict("eta", self.eta, f"{user} has none", "0, or the sampler ddim in another mode")
        if self.mode is Mode.PIXEL and self.guide not in (None, 1):
            raise _conflict("guide", self.guide, "mode pixel is not pushed by a guide", "1, or another mode")
        if self.best_of < self.num_images:
            raise refused("out_of_range", "best_of", self.best_of, f"{self.num_images}..{MAX_IMAGES}")
        if self.mode is Mode.NONE and self.best_of > self.num_images:
            raise _conflict("best_of", self.best_of, "only guided faces are ranked", "num_images, or a guided mode")
        return self

    def _needs_no_image(self) -> None:
        """Refuse what only makes sense with a selfie. A value equal to its default asks for nothing."""
        asked = {
            "mode": self.mode is not Mode.NONE,
            "resemblance": self.resemblance is not None,
            "align": self.align is not Align.AUTO,
            "face": self.face is not None,
            "return_target": self.return_target,
            "detect_only": self.detect_only,
        }
        for name, is_asked in asked.items():
            if is_asked:
                given = str(value) if isinstance(value := getattr(self, name), Box) else value
                message = f"{name} needs a selfie, and there is no image."
                raise InvalidRequest("image_required", message, field=name, given=given, allowed="only with an image")

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """What was given and has no effect."""
        notices = []
        if self.detect_only:
            used = {"image", "align", "face", "detect_only", "return_target"}
            if idle := [name for name in type(self).model_fields if name in self.model_fields_set - used]:
                notices.append(_idle(", ".join(idle), "detect_only generates nothing"))
        elif self.image is not None and self.mode is Mode.NONE and not self.return_target:
            notices.append(_idle("image", "mode none is unguided"))
        elif self.resemblance is not None and self.mode is not Mode.AUTO:
            notices.append(_idle(f"mode {self.mode}", "resemblance says where on the curve"))
        return tuple(notices)

    def parameters(self) -> dict[str, Any]:
        """Every field but the picture, defaults filled in, as JSON values; the model fills in what is None."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "image"}
        return {name: str(value) if isinstance(value, str | Box) else value for name, value in values.items()}


def parse_json(value: Any) -> GenerateRequest:
    """The request in a parsed JSON document.

    Raises:
        InvalidRequest: whatever is wrong with it; the first thing found.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidRequest("malformed_json", "The body is not valid JSON.", given=value, allowed="a JSON object")
    if not isinstance(value, dict):
        message = "The JSON document is not an object."
        given = f"a text of {len(value)} characters" if isinstance(value, str) else value  # it may be a picture
        raise InvalidRequest("wrong_type", message, given=given, allowed='a JSON object such as {"num_images": 5}')
    fields = _named(value)
    for name, content in fields.items():
        if content is None:
            message = f"{name} is null; leave it out to get its default."
            raise InvalidRequest("wrong_type", message, field=name, allowed=_allowed(name))
    return _checked(fields)


def parse_form(fields: Mapping[str, str | bytes | bytearray]) -> GenerateRequest:
    """The request in a form: the picture as bytes, numbers and truth values as text.

    Raises:
        InvalidRequest: whatever is wrong with it; the first thing found. A form without a field is an error.
    """
    if not fields:
        message = "The form is empty or malformed."
        raise InvalidRequest("empty_form", message, allowed="at least one field; JSON {} asks for all defaults")
    named = _named(fields)
    if isinstance(picture := named.get("image"), str):
        raise refused("wrong_type", "image", f"a text of {len(picture)} characters", "a file; base64 belongs into JSON")
    return _checked({name: content if name == "image" else _typed(name, content) for name, content in named.items()})


def parse_raw(body: bytes | bytearray, query: Mapping[str, str] | None = None) -> GenerateRequest:
    """The request whose body is the picture itself, with further fields from the query string.

    Raises:
        InvalidRequest: an empty body, or whatever is wrong with the query.
    """
    named = _named(query or {})
    if "image" in named:
        raise InvalidRequest("conflict", "The picture is the body; it cannot be in the query too.", field="image")
    return _checked({"image": body, **{name: _typed(name, text) for name, text in named.items()}})


def _named(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields under their own names, an alias of the picture replaced."""
    named: dict[str, Any] = {}
    for given, content in fields.items():
        name = "image" if given in PICTURE_NAMES else given
        if name not in GenerateRequest.model_fields:
            raise unknown_field(given, GenerateRequest.model_fields)
        if name in named:
            allowed = f"one of {', '.join(PICTURE_NAMES)}"
            raise InvalidRequest("conflict", "The picture is given twice.", field="image", allowed=allowed)
        named[name] = content
    return named


def unknown_field(name: Any, fields: Iterable[str]) -> InvalidRequest:
    """The refusal of a field that is not among these."""
    label, known = shown_name(name), [*fields]
    near = get_close_matches(label, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    message = f"There is no field {label}.{hint}"
    return InvalidRequest("unknown_field", message, field=label, given=label, allowed=", ".join(known))


def _checked(fields: dict[str, Any]) -> GenerateRequest:
    try:
        return GenerateRequest.model_validate(fields)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
    # outside the handler: pydantic's error holds the picture and must not travel along
    raise _explained(first)


def _explained(problem: ErrorDetails) -> InvalidRequest:
    own = problem.get("ctx", {}).get("error")
    if isinstance(own, InvalidRequest):
        return InvalidRequest(**own.error.model_dump(exclude={"retry_after"}))
    name, given = str(problem["loc"][0]), problem["input"]
    kind, allowed = _kind(name), _allowed(name)
    if problem["type"] in {"greater_than_equal", "less_than_equal", "finite_number"}:
        return refused("out_of_range", name, given, allowed)
    if issubclass(kind, str) and isinstance(given, str):
        return refused("unknown_value", name, given, allowed)
    if kind in {int, float}:
        allowed = f"{'an integer' if kind is int else 'a number'}, {allowed}"
    return refused("wrong_type", name, given, allowed)


def _allowed(name: str) -> str:
    """What a field may be, in words, read off its definition."""
    if name in {"image", "align"}:
        return IMAGE_ALLOWED if name == "image" else ALIGN_ALLOWED
    kind = _kind(name)
    if kind is bool:
        return "true or false"
    if issubclass(kind, str):
        return ", ".join(kind)
    bounds = GenerateRequest.model_fields[name].metadata
    low = next(bound.ge for bound in bounds if isinstance(bound, annotated_types.Ge))
    high = next((bound.le for bound in bounds if isinstance(bound, annotated_types.Le)), None)
    if name == "seed":
        return f"-1 (random) or 0..{high}"
    return f"{low} or more" if high is None else f"{low}..{high}"


def _kind(name: str) -> Any:
    """A field's plain type, such as int or an enum."""
    annotation = GenerateRequest.model_fields[name].annotation
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    return get_args(kinds[0])[0] if get_args(kinds[0]) else kinds[0]


def _typed(name: str, content: str | bytes | bytearray) -> Any:
    """A form field's text as what its field wants; text that does not fit stays text and is refused later."""
    if not isinstance(content, str):
        try:
            content = content.decode("utf-8")
        except UnicodeDecodeError:
            return content
    kind = _kind(name)
    return from_text(content, kind) if kind in {int, float, bool} else content.strip()


def _conflict(field: str, given: Any, why: str, allowed: str) -> InvalidRequest:
    message = f"{field} {given} contradicts the rest: {why}."
    return InvalidRequest("conflict", message, field=field, given=given, allowed=allowed)


def _idle(what: str, why: str) -> Notice:
    return Notice(code="no_effect", message=f"{what}: no effect, {why}.")
