"""Everything in k8s/ renders, and a cluster's API would take each object."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.k8s.pod import ROOT, Object, one, render

OVERLAYS = ("cpu", "gpu", "keda", "monitoring", "canary")
SCHEMAS = Path(__file__).parent / "schemas"
CLOUD_RUN = yaml.safe_load((ROOT / "k8s/cloudrun/service.yaml").read_text())
CORE = {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "policy/v1"}


def minor(version: str) -> int:
    return int(version.split(".")[1])


VERSIONS = sorted((v for v in kubernetes_validate.utils.all_versions() if minor(v) >= 28), key=minor)


def rendered() -> dict[str, tuple[Object, ...]]:
    folders = {f"overlays/{overlay}": render(f"overlays/{overlay}") for overlay in OVERLAYS}
    for file in (ROOT / "k8s/examples").iterdir():
        folders[f"examples/{file.name}"] = tuple(yaml.safe_load_all(file.read_text()))
    return {**folders, "training": render("training")}


def objects(*, core: bool) -> list[Any]:
    """What is the same in several overlays is looked at once."""
    found = {json.dumps(each): (folder, each) for folder, objects in rendered().items() for each in objects}
    return [
        pytest.param(each, id=f"{folder}: {each['kind']} {each['metadata']['name']}")
        for folder, each in found.values()
        if (each["apiVersion"] in CORE) is core
    ]


def test_no_overlay_was_forgotten():
    assert {folder.name for folder in (ROOT / "k8s/overlays").iterdir()} == set(OVERLAYS)
    assert (minor(VERSIONS[0]), len(VERSIONS) >= 10) == (28, True)


@pytest.mark.parametrize("each", objects(core=True))
def test_every_version_of_kubernetes_takes_it(each):
    for version in VERSIONS:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("each", objects(core=False))
def test_custom_kinds_are_what_their_controllers_read(each):
    jsonschema.validate(each, json.loads((SCHEMAS / f"{each['kind']}.json").read_text()))


def shown(folder: Path, blocks: list[str]) -> tuple[Object, ...]:
    """What the operations page shows of an overlay of one's own, rendered."""
    folder.mkdir()
    text = "".join(blocks).replace("../k8s", os.path.relpath(ROOT / "k8s", folder.resolve()))
    (folder / "kustomization.yaml").write_text(text)
    return render(str(folder))


def test_an_overlay_of_ones_own_renders_as_the_operations_page_shows_it(tmp_path):
    own, other_nodes = re.findall(r"```yaml\n(.+?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    objects = shown(tmp_path / "mine", [own])
    assert {"Deployment", "PodMonitor", "PrometheusRule"} <= {each["kind"] for each in objects}
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    images = {container["image"] for container in (*pod["containers"], *pod["initContainers"])}
    assert images == {"registry.example.com/ddpm-lookalike:0.1.0-cuda"}
    assert "runtimeClassName" not in pod

    pod = one(shown(tmp_path / "elsewhere", [own, other_nodes]), "Deployment")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["runtimeClassName"] == "nvidia"


def test_cloud_run_takes_its_service():
    jsonschema.validate(CLOUD_RUN, json.loads((SCHEMAS / "CloudRunService.json").read_text()))
