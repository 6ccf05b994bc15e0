"""The contract: request, events, result, errors, and their renderings. Needs pydantic and pillow, nothing else."""

from __future__ import annotations

from ddpm_api.document import read_json
from ddpm_api.errors import ApiError, Error, ErrorBody, InvalidRequest
from ddpm_api.events import (
    EndEvent,
    ErrorEvent,
    Event,
    FacesEvent,
    ImageEvent,
    PreviewEvent,
    ProgressEvent,
    QueuedEvent,
    StartedEvent,
    WarningEvent,
    parse_event,
    to_ndjson,
    to_sse,
)
from ddpm_api.fields import Align, Box, Mode, OutputFormat, Sampler
from ddpm_api.picture import ImageLike, MarkedImage, contact_sheet, file_of, parameters_in, save_marked
from ddpm_api.render import Kind, Rendering, choose
from ddpm_api.request import PICTURE_NAMES, GenerateRequest, parse_form, parse_json, parse_raw, unknown_field
from ddpm_api.result import Result, ResultBuilder
from ddpm_api.shapes import FoundFace, GeneratedImage, Notice, Target, Timing

__all__ = [
    "PICTURE_NAMES",
    "Align",
    "ApiError",
    "Box",
    "EndEvent",
    "Error",
    "ErrorBody",
    "ErrorEvent",
    "Event",
    "FacesEvent",
    "FoundFace",
    "GenerateRequest",
    "GeneratedImage",
    "ImageEvent",
    "ImageLike",
    "InvalidRequest",
    "Kind",
    "MarkedImage",
    "Mode",
    "Notice",
    "OutputFormat",
    "PreviewEvent",
    "ProgressEvent",
    "QueuedEvent",
    "Rendering",
    "Result",
    "ResultBuilder",
    "Sampler",
    "StartedEvent",
    "Target",
    "Timing",
    "WarningEvent",
    "choose",
    "contact_sheet",
    "file_of",
    "parameters_in",
    "parse_event",
    "parse_form",
    "parse_json",
    "parse_raw",
    "read_json",
    "save_marked",
    "to_ndjson",
    "to_sse",
    "unknown_field",
]
