"""What an operator may set by environment variables."""

from __future__ import annotations

import pytest
from typer.main import get_command

from ddpm_service.cli import app
from ddpm_service.errors import ServiceError
from ddpm_service.gateway.settings import Settings


def test_what_is_not_set_has_its_default():
    assert Settings.read({}) == Settings()
    assert Settings.read({"DDPM_SERVICE_HOST": "10.0.0.1", "PATH": "/bin"}) == Settings()  # the cluster's own
    workers = {"DDPM_REQUIRE_GPU": "1", "DDPM_CUDA_GRAPHS": "1", "DDPM_FACE_DETECTOR": "yunet.onnx"}
    assert Settings.read(workers) == Settings()


def test_numbers_and_lists_are_read():
    read = Settings.read({"DDPM_MAX_BYTES": "2048", "DDPM_CORS_ORIGINS": "https://a.example, https://b.example,"})
    assert (read.max_bytes, read.cors_origins) == (2048, ("https://a.example", "https://b.example"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("DDPM_MAX_OPEN", "0"), ("DDPM_MAX_OPEN", "many"), ("DDPM_HEARTBEAT_SECONDS", "16"), ("DDPM_DRAIN_SECONDS", "-1")],
)
def test_what_is_not_allowed_is_named(name, value):
    with pytest.raises(ServiceError, match=f"{name}={value}"):
        Settings.read({name: value})


def test_options_that_come_by_the_environment_are_no_settings():
    options = get_command(app).commands["serve"].params
    names = [name for option in options if (name := option.envvar) and name.startswith("DDPM_")]
    assert {"DDPM_TOKENS", "DDPM_FACE_DETECTOR"} <= {*names}
    assert Settings.read(dict.fromkeys(names, "x")) == Settings()


def test_a_name_that_is_none_of_them_is_refused_with_those_there_are():
    with pytest.raises(ServiceError, match=r"DDPM_MAX_BYTE is not a setting; there are .*DDPM_MAX_BYTES"):
        Settings.read({"DDPM_MAX_BYTE": "2048"})
