"""TorchServe's settings before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ddpm_service.torchserve import server
from ddpm_service.torchserve.server import Ports, TorchServe, TorchServeError
from handlers import gpu


@pytest.mark.parametrize(
    "setting",
    ["inference_address", "management_address", "metrics_address", "grpc_inference_port", "grpc_management_port"],
)
def test_each_of_its_ports_is_named_when_it_is_taken(setting: str, tmp_path: Path) -> None:
    (tmp_path / "config.properties").touch()
    (tmp_path / "model_store").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = f"http://127.0.0.1:{port}" if setting.endswith("address") else str(port)
        settings = Ports.free().settings() | {setting: address}

        with pytest.raises(TorchServeError, match=f"port {port} is in use"):
            TorchServe(tmp_path / "config.properties", settings).start()


@pytest.mark.parametrize(
    ("given", "torchserve", "workers"),
    [
        (None, None, None),
        ("", "", None),
        ("2,3", "2,3", None),
        ("2, 3", "0,1", "2, 3"),
        ("GPU-8f6d1f3e", "0", "GPU-8f6d1f3e"),
        ("MIG-1c2a7c2e,MIG-9d3b", "0,1", "MIG-1c2a7c2e,MIG-9d3b"),
    ],
)
def test_torchserve_reads_numbers_of_gpus_and_the_workers_their_names(
    monkeypatch: pytest.MonkeyPatch, given: str | None, torchserve: str | None, workers: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    environment = server._environment("/tmp/nowhere")
    assert environment.get("CUDA_VISIBLE_DEVICES") == torchserve
    assert environment.get(gpu.VISIBLE) == workers
