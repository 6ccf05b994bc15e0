"""The operations page speaks of what there is."""

from __future__ import annotations

import re
import shutil
import subprocess

import yaml

from ddpm_service.gateway.settings import Settings
from handlers.settings import CUDA_GRAPHS, REQUIRE_GPU
from tests.k8s.pod import ROOT, one, render

PAGE = (ROOT / "docs" / "operations.md").read_text()


def test_the_files_and_folders_it_names_are_there():
    named = set(re.findall(r"(?<![\w/.])(?:k8s|ddpm_service|docs)/[\w./-]*\w", PAGE))
    assert len(named) > 10
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_the_objects_it_names_are_there():
    named = set(re.findall(r"\b(deployment|service|httproute|job)/(ddpm[\w-]*)", PAGE))
    assert len(named) >= 4
    kinds = {"deployment": "Deployment", "service": "Service", "httproute": "HTTPRoute", "job": "Job"}
    for kind, name in named:
        assert one(render("training" if kind == "job" else "overlays/canary"), kinds[kind], name)


def test_the_settings_and_metrics_it_names_are_there():
    settings = {f"DDPM_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bDDPM_\w+", PAGE)) - {"DDPM_MAX_BYTE"}  # an example of one that is not
    assert named
    assert named <= settings | {"DDPM_TOKENS", REQUIRE_GPU, CUDA_GRAPHS}  # of the command and of the workers
    shown = re.findall(
        r"\bddpm_\w+", one(render("overlays/monitoring"), "ConfigMap", "ddpm-dashboard")["data"]["dashboard.json"]
    )
    assert set(re.findall(r"\bddpm_(?!service)\w+", PAGE)) <= set(shown)


def test_the_numbers_of_a_stop_are_those_of_the_deployment():
    deployment = one(render("overlays/cpu"), "Deployment")
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert f"`terminationGracePeriodSeconds` is {grace}" in PAGE
    threshold = one(render("overlays/keda"), "ScaledObject")["spec"]["triggers"][0]["metadata"]["threshold"]
    assert f"where {threshold} s stands" in PAGE


def test_what_it_has_applied_is_pulled_from_the_registry_that_it_has_pushed_to(tmp_path):
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    fill, training = (
        "\n".join(re.findall(pattern, PAGE, re.MULTILINE | re.DOTALL))
        for pattern in (r"^sed [^\n]*fill-volume\.yaml", r"^mkdir.*?kustomization\.yaml$")
    )
    filled = subprocess.run(fill, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    subprocess.run(training, shell=True, cwd=tmp_path, check=True)

    job = one(render(str(tmp_path / "mine" / "training")), "Job", "ddpm-train")["spec"]["template"]
    pods = (yaml.safe_load(filled), job)

    applied = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    assert len(applied) == 2
    assert applied <= set(re.findall(r"--tag (registry\S+)", PAGE))
    assert re.findall(r"kubectl apply -k (\S+)", PAGE) == ["mine"] * 4 + ["mine/training"]
