"""What an operator may set, by environment variables (a ConfigMap): DDPM_MAX_BYTES=33554432 and so on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ddpm_service.errors import ServiceError

_PREFIX = "DDPM_"
_FIELDS_BYTES = 64 * 2**10
# Options of the commands and of the workers; and what a cluster sets for services whose names begin like ours.
_OTHERS = re.compile(
    r"DDPM_(TOKENS?|CHECKSUMS|FACE_DETECTOR|REQUIRE_GPU|CUDA_GRAPHS)|\w+_(SERVICE_HOST|(SERVICE_)?PORT(_\w+)?)"
)


def _listed(value: object) -> object:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


class Settings(BaseModel):
    """Limits and times of the front door. Those per token hold where tokens are asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(32 * 2**20, ge=1024, le=2**30, description="longest request body")
    max_upload_bytes: int = Field(256 * 2**20, ge=1024, description="bodies that are held in memory at one time")
    upload_seconds: float = Field(60.0, gt=0, description="time in which a body must have arrived")
    min_upload_rate: int = Field(16 * 2**10, ge=1, description="bytes a second that a body must arrive at")
    max_open: int = Field(100, ge=1, le=1000, description="requests under way or queued per model version")
    max_open_per_token: int = Field(20, ge=1, description="requests of one token under way or queued")
    rate_per_minute: float = Field(120.0, ge=1, description="requests of one token")
    stalled_seconds: float = Field(30.0, gt=0, description="time after which a client that reads nothing is left")
    heartbeat_seconds: float = Field(10.0, gt=0, le=15, description="longest silence of a stream")
    drain_seconds: float = Field(300.0, ge=0, description="time that running requests get at the end")
    hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="names by which it is asked, separated by commas; *.example.com is all names below, * is any"
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="origins of web pages that may ask, separated by commas"
    )

    @property
    def longest_upstream(self) -> int:
        """The longest body that goes on to TorchServe: as a form, with a field for every setting."""
        return self.max_bytes + _FIELDS_BYTES

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings of an environment.

        Raises:
            ServiceError: one is not known or not allowed, with its name.
        """
        known = {_PREFIX + name.upper() for name in cls.model_fields}
        for key in environment:
            if key.startswith(_PREFIX) and key not in known and not _OTHERS.fullmatch(key):
                raise ServiceError(f"{key} is not a setting; there are {', '.join(sorted(known))}")
        given = {name: environment[key] for name in cls.model_fields if (key := _PREFIX + name.upper()) in environment}
        try:
            return cls.model_validate(given)
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            name = _PREFIX + str(first["loc"][0]).upper()
            raise ServiceError(f"{name}={first['input']}: {first['msg']}") from problem
