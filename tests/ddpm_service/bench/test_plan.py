"""What a serving benchmark can be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ddpm_service.bench.serving import Plan
from ddpm_service.errors import ServiceError


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"loads": (0.4, 0.0)}, "--loads must be above 0, not 0"),
        ({"loads": (-1.0,)}, "--loads must be above 0, not -1"),
        ({"loads": (float("nan"),)}, "--loads must be above 0, not nan"),
        ({"delays": (-5,)}, "--delays must be 0 or more, not -5"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_starts(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ServiceError, match=says):
        Plan(**asked)


def test_the_usual_plan_can_be_played() -> None:
    assert Plan().loads
