"""The handler's own settings: the section `handler` of model-config.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_OPEN = "DDPM_MAX_OPEN"
"""Environment variable: the engine's capacity, the front door's limit too."""
REQUIRE_GPU = "DDPM_REQUIRE_GPU"
"""Environment variable: 1 where a worker must not serve on a CPU."""
CUDA_GRAPHS = "DDPM_CUDA_GRAPHS"
"""Environment variable: 1 where a GPU replays the network's calls."""


class Settings(BaseModel):
    """How much is taken in, and how long a handler call lasts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    capacity: int = Field(100, ge=1, le=1000, description="requests under way and waiting together")
    max_work: int = Field(4000, ge=1, description="images × network calls that one request may ask for")
    max_work_grpc: int = Field(1000, ge=1, description="the same over TorchServe's gRPC, answered in one handler call")
    grpc_seconds: float = Field(60.0, gt=0, description="how long such a call may last; below responseTimeout")
    tick_seconds: float | None = Field(
        None,
        gt=0,
        description="a call makes the ticks that begin within this time, or one, and ends with the first request that "
        "does; unless said 0.03 on a CPU and 0.01 on a GPU",
    )
    idle_seconds: float = Field(2.0, gt=0, description="requests that no call asks for during this time are dropped")
    require_gpu: bool = Field(False, description="whether a worker without a GPU refuses to load")
    cuda_graphs: bool = Field(
        False, description="whether a GPU replays the network's calls where that is faster; a CPU never does"
    )


def read_settings(section: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Check and take the section as it was parsed, and what the environment sets: the capacity, and what a GPU does.

    Raises:
        ValueError: a name that is not known, or a value that is not possible, in one line.
    """
    given = dict(section or {})
    if MAX_OPEN in environment:
        text = environment[MAX_OPEN]
        given["capacity"] = int(text) if text.isdecimal() else text
    for name, field in {REQUIRE_GPU: "require_gpu", CUDA_GRAPHS: "cuda_graphs"}.items():
        if name in environment:
            given[field] = {"0": False, "1": True}.get(environment[name], environment[name])
    try:
        return Settings.model_validate(given)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
    known = ", ".join(Settings.model_fields)
    where = ".".join(str(part) for part in first["loc"])
    raise ValueError(f"model-config.yaml: handler.{where}: {first['msg']} (known: {known})")
