"""What stands in two places, because layers must not import one another, is the same in both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from ddpm_api import GenerateRequest, Mode, OutputFormat, Sampler
from ddpm_api import fields as words
from ddpm_api import request as contract
from ddpm_core import plan, sampling
from ddpm_core.data import bounds as zips
from ddpm_core.denoiser import Prediction
from ddpm_core.domain import Domain
from ddpm_core.faces import CONTENT_TYPES, find
from ddpm_core.faces.align import ALIGN_ALLOWED
from ddpm_core.faces.decode import KEEP_SIDE
from ddpm_core.training import recipe
from ddpm_service import archive
from ddpm_service.cli import choices
from ddpm_service.gateway.settings import Settings as DoorSettings
from ddpm_service.torchserve.server import read_properties
from handlers.settings import MAX_OPEN
from handlers.settings import Settings as HandlerSettings

ROOT = Path(__file__).parent.parent


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    low = next(bound.ge for bound in field.metadata if isinstance(bound, Ge))
    return low, next(bound.le for bound in field.metadata if isinstance(bound, Le))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Mode, plan.Mode),
        (Sampler, sampling.Sampler),
        (choices.Domain, Domain),
        (choices.PredictionType, Prediction),
        (choices.Schedule, recipe.Schedule),
    ],
)
def test_names_are_those_of_the_core(one: Any, other: Any) -> None:
    assert [*map(str, one)] == [*map(str, other)]


def test_ranges_and_defaults_of_a_request_are_those_of_a_plan() -> None:
    fields = GenerateRequest.model_fields
    assert {name: bounds(fields[name]) for name in plan.RANGES} == plan.RANGES
    assert (contract.MAX_IMAGES, contract.MAX_SEED) == (plan.MAX_IMAGES, sampling.MAX_SEED)
    assert contract.S0_SCALE == plan.PIXEL_LOSS_SCALE


def test_formats_and_words_of_a_request_are_those_of_the_core() -> None:
    assert {each.value: each.content_type for each in OutputFormat} == CONTENT_TYPES
    assert words.ALIGN_ALLOWED == ALIGN_ALLOWED
    assert choices.YUNET == find.YUNET


def test_the_front_door_and_the_engine_have_one_limit_of_open_requests() -> None:
    door, engine = DoorSettings.model_fields["max_open"], HandlerSettings.model_fields["capacity"]
    assert (bounds(door), door.default) == (bounds(engine), engine.default)
    assert MAX_OPEN == "DDPM_MAX_OPEN"


def test_torchserve_takes_whatever_the_front_door_takes() -> None:
    properties = read_properties(ROOT / "config.properties")
    assert int(properties["max_request_size"]) == DoorSettings().longest_upstream
    assert int(properties["job_queue_size"]) > bounds(DoorSettings.model_fields["max_open"])[1]


def test_the_page_stops_where_the_modes_are() -> None:
    script = (ROOT / "ddpm_service/page/static/controls.js").read_text(encoding="utf-8")
    line = next(line for line in script.splitlines() if line.startswith("const STOPS"))
    stops = {name: int(place) / 100 for place, name in re.findall(r"\[(\d+), \"(\w+)\"\]", line)}
    assert stops == {str(mode): place for mode, place in plan.RESEMBLANCE.items()}


def test_the_page_halves_a_photo_where_the_service_does() -> None:
    script = (ROOT / "ddpm_service/page/static/photo.js").read_text(encoding="utf-8")
    assert f"const LARGE = {2 * KEEP_SIDE};" in script


def test_an_archive_may_hold_what_any_zip_may() -> None:
    names = ("MAX_BYTES", "MAX_MEMBERS", "MAX_RATIO")
    assert [getattr(archive, name) for name in names] == [getattr(zips, name) for name in names]
