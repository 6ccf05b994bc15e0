"""TorchServe's settings before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ddpm_service.torchserve.server import Ports, TorchServe, TorchServeError


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
