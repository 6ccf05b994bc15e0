"""A worker gets the GPU that TorchServe gives it; where one is required, a worker without it says what is missing."""

from __future__ import annotations

import pytest
import torch

from handlers import gpu
from handlers.ddpm_handler import Handler
from handlers.gpu import VISIBLE, device_for, see_given_gpus
from handlers.settings import Settings, read_settings

Patch = pytest.MonkeyPatch


@pytest.fixture
def bare(monkeypatch: Patch, tmp_path) -> None:
    """A machine without a GPU, with PyTorch for CUDA."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("handlers.gpu._DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)


@pytest.mark.parametrize(("given", "device"), [(0, "cuda:0"), (1, "cuda:1"), (None, "cuda:0")])
def test_a_worker_gets_the_gpu_that_it_is_given(monkeypatch: Patch, given: int | None, device: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert str(device_for(given, required=True)) == str(device_for(given, required=False)) == device


def test_without_a_gpu_it_serves_on_the_cpu_unless_one_is_required(bare) -> None:
    assert device_for(0, required=False) == torch.device("cpu")
    with pytest.raises(RuntimeError, match="A GPU is required"):
        device_for(0, required=True)


def test_each_of_what_is_missing_is_named(bare, monkeypatch: Patch, tmp_path) -> None:
    def said() -> str:
        with pytest.raises(RuntimeError) as refused:
            device_for(None, required=True)
        return str(refused.value)

    needed = {"nvidia-smi is not on PATH", "libcuda.so.1 is not found (LD_LIBRARY_PATH: not set)", "there is no device"}
    assert all(words in said() for words in needed)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert {words for words in needed if words in said()} == needed - {"nvidia-smi is not on PATH"}
    (tmp_path / "nvidia0").touch()
    assert {words for words in needed if words in said()} == {"libcuda.so.1 is not found (LD_LIBRARY_PATH: not set)"}
    monkeypatch.setattr("handlers.gpu._known_cuda", lambda: 12)
    assert "the driver knows CUDA 12 and PyTorch is built for 13.0" in said()
    monkeypatch.setattr("handlers.gpu._known_cuda", lambda: 13)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert said().endswith("there is none: CUDA_VISIBLE_DEVICES hides all.")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "nvidia-smi` tells more" in said()
    monkeypatch.setattr("torch.version.cuda", None)
    assert "PyTorch is built without CUDA" in said()


def test_a_machine_without_a_driver_has_none() -> None:
    assert gpu._known_cuda() in (None, 12, 13)


def test_a_model_on_a_gpu_node_without_its_gpu_does_not_load(
    bare, make_context, toy_folder, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("DDPM_REQUIRE_GPU", "1")
    with pytest.raises(RuntimeError, match=r"A GPU is required \(DDPM_REQUIRE_GPU\) and there is none: nvidia-smi"):
        Handler(make_context(toy_folder))


@pytest.mark.parametrize("field", ["require_gpu", "cuda_graphs"])
def test_what_a_gpu_is_to_do_is_1_or_0(field: str) -> None:
    name = f"DDPM_{field.upper()}"
    assert read_settings(None, {name: "1"}) == Settings(**{field: True})
    assert read_settings(None, {name: "0"}) == Settings()
    with pytest.raises(ValueError, match=rf"handler\.{field}: "):
        read_settings(None, {name: "maybe"})


def test_a_cpu_replays_no_calls(bare, make_context, toy_folder, monkeypatch: Patch) -> None:
    monkeypatch.setenv("DDPM_CUDA_GRAPHS", "1")
    monkeypatch.setattr("handlers.loading.quickened", lambda *_: pytest.fail("there is no GPU"))
    assert Handler(make_context(toy_folder)).settings.cuda_graphs


def test_cuda_sees_the_gpus_by_the_names_that_the_service_was_given() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "0", VISIBLE: "MIG-3f8c"}
    see_given_gpus(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "MIG-3f8c"}
    see_given_gpus(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "MIG-3f8c"}
