"""The OpenAPI document: complete, and true under schemathesis."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from ddpm_service.torchserve.board import State, VersionState

pytestmark = pytest.mark.anyio

# Rules between fields (such as: best_of is at least num_images) cannot be said in a schema.
CHECKS = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")
RUN = ("--max-examples", "10", "--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--no-color")


async def test_it_names_the_contracts_fields_and_gives_examples(house):
    async with house.client.get("/openapi.json") as response:
        document = await response.json()
    request = document["components"]["schemas"]["GenerateRequest"]
    assert {"image", "num_images", "mode", "resemblance", "seed"} <= request["properties"].keys()
    operation = document["paths"]["/predictions/{name}"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["examples"]
    assert {"200", "401", "413", "415", "422", "429", "503"} <= operation["responses"].keys()
    assert {"application/json", "image/png", "text/event-stream"} <= operation["responses"]["200"]["content"].keys()


async def test_every_route_keeps_what_it_says(house, tmp_path):
    manifest = house.board.models()["faces"].versions["1"].manifest
    house.board.put("faces-64", "1.0", VersionState("faces-64_1.0.mar", State.READY, manifest=manifest))
    program = Path(sys.executable).with_name("schemathesis")
    process = await asyncio.create_subprocess_exec(
        *(program, "run", f"{house.url}/openapi.json", *CHECKS, *RUN),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert house.upstream.requests  # it came as far as the model
