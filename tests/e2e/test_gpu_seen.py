"""A real TorchServe beside an `nvidia-smi` that tells of two GPUs: what its workers are given and make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from ddpm_service.archive import pack
from ddpm_service.torchserve.management import Management, ManagementError
from ddpm_service.torchserve.server import Ports, TorchServe

pytestmark = pytest.mark.torchserve
ROOT = Path(__file__).parents[2]

NVIDIA_SMI = """#!/bin/sh
case "$*" in
*query-gpu=index*) printf 'index\\n0\\n1\\n' ;;
*) printf 'utilization.gpu [%%], utilization.memory [%%], memory.used [MiB]\\n0 %%, 0 %%, 1 MiB\\n' ;;
esac
"""
# Says which GPU it was given.
HANDLER = """
import json, os

def handle(data, ctx):
    if data is None:
        return None
    ctx.stopping_criteria = [lambda _: None] * len(data)
    told = {"gpu": ctx.system_properties.get("gpu_id"), "names": os.environ.get("DDPM_VISIBLE_GPUS")}
    return [json.dumps(told)] * len(data)
"""
Serve = Callable[..., AbstractContextManager[TorchServe]]


@pytest.fixture
def serve(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Start a TorchServe on a machine with two GPUs, so far as one can tell from `nvidia-smi`."""
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    @contextmanager
    def serve(**environment: str) -> Iterator[TorchServe]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = Ports.free().settings() | {"model_store": str(store), "load_models": ""}
        with TorchServe(ROOT / "config.properties", settings) as server:
            yield server

    return serve


def told(server: TorchServe, model: str) -> Any:
    answer = requests.get(f"{server.inference_url}/predictions/{model}", timeout=60)
    return json.loads(answer.text)


def test_each_of_two_versions_gets_a_gpu_of_its_own(serve: Serve, make_toy) -> None:
    archives = [make_toy(name, "1.0", handler=HANDLER) for name in ("first", "second")]
    with serve() as server:
        management = Management(server.management_url)
        for archive in archives:
            management.register(archive)
        assert {told(server, name)["gpu"] for name in ("first", "second")} == {0, 1}
        assert management.describe("first")[0].workers[0].gpu


def test_gpus_given_by_their_names_are_counted_and_workers_are_told_the_names(serve: Serve, make_toy) -> None:
    archive = make_toy("named", "1.0", handler=HANDLER)
    with serve(CUDA_VISIBLE_DEVICES="MIG-1c2a7c2e-5f0f-5f1b-8a3e-0f5a2b9f7a11") as server:
        Management(server.management_url).register(archive)
        assert told(server, "named") == {"gpu": 0, "names": "MIG-1c2a7c2e-5f0f-5f1b-8a3e-0f5a2b9f7a11"}


def test_a_model_that_requires_a_gpu_says_what_of_it_is_missing(
    serve: Serve, store: Path, tmp_path: Path, write_toy_bundle
) -> None:
    archive = pack(write_toy_bundle(tmp_path / "bundle", name="strict"), store)
    with serve(DDPM_REQUIRE_GPU="1") as server:
        with pytest.raises(ManagementError):
            Management(server.management_url).register(archive.name)
        why = server.reason("strict", "1.0")
    assert "A GPU is required (DDPM_REQUIRE_GPU) and there is none: " in why
    assert "libcuda.so.1 is not found" in why
    assert "nvidia-smi is not on PATH" not in why
