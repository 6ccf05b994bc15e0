"""The training job: what its manifests say, and its own command as two pods that meet, are taken away and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ddpm_service.torchserve.server import free_port
from tests.k8s.pod import ROOT, one, render

RECIPE = {
    "network": {"class": "AttentionUNet", "widths": [8, 8], "middle": 8, "heads": 2},
    "image_size": 16,
    "batch": 8,
    "steps": 100_000,
    "precision": "float32",
    "validation": 0.2,
    "validate_every": 100_000,
    "checkpoint_every": 10,
    "checkpoint_minutes": 0,
    "sample_every": 0,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    pictures = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "data" / f"{i}.png")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


@pytest.fixture
def start(folder, request):
    """Start a pod of the job, the container's command and variables with this machine's paths."""
    (container,) = one(render("training"), "Job", "ddpm-train")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["tini", "--", "torchrun"]
    variables = {"DATA": folder / "data", "RUN": folder / "run", "RECIPE": folder / "recipe.yaml"}
    assert variables.keys() == {each["name"] for each in container["env"]}
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {name: str(value) for name, value in variables.items()}

    endpoint = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    arguments = [endpoint if word.startswith("--rdzv-endpoint") else word for word in container["args"]]
    command = [str(tools / "torchrun"), *arguments]

    def start() -> subprocess.Popen[bytes]:
        pod = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        request.addfinalizer(pod.wait)
        request.addfinalizer(pod.kill)
        return pod

    return start


def newest(checkpoints: Path) -> int:
    return max(int(each.name.removeprefix("step-")) for each in checkpoints.glob("step-*"))


def test_two_pods_train_one_model_and_go_on_after_one_was_taken_away(start, folder):
    pods = [start(), start()]
    checkpoints = folder / "run" / "checkpoints"
    while not list(checkpoints.glob("step-*")):
        assert [pod.poll() for pod in pods] == [None, None]
        time.sleep(0.1)
    pods[0].send_signal(signal.SIGTERM)
    assert pods[0].wait(60) != 0  # or the job would count it as done
    before = newest(checkpoints)

    recipe = folder / "run" / "recipe.yaml"
    steps = before + 10
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"steps": steps}))
    deadline = time.monotonic() + 300
    while any(pod.poll() != 0 for pod in pods):  # as the job: who failed is started again
        assert time.monotonic() < deadline
        pods = [pod if pod.poll() in (None, 0) else start() for pod in pods]
        time.sleep(0.1)
    assert newest(checkpoints) == steps
    assert (folder / "run" / "last" / "bundle.json").exists()


def test_the_processes_of_a_training_job_meet_each_other_and_nobody_else():
    job = one(render("training"), "Job", "ddpm-train")["spec"]
    service = one(render("training"), "Service", "ddpm-train")
    policy = one(render("training"), "NetworkPolicy", "ddpm-training")["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, 2)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    arguments = dict(word.split("=", 1) for word in container["args"] if word.startswith("--") and "=" in word)
    assert arguments["--nnodes"] == str(job["completions"])
    assert arguments["--nproc-per-node"] == container["resources"]["limits"]["nvidia.com/gpu"]
    first = f"ddpm-train-0.{service['metadata']['name']}"
    assert arguments["--rdzv-endpoint"] == f"{first}:{service['spec']['ports'][0]['port']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    labels = job["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == policy["podSelector"]["matchLabels"]
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]
    recipe = next(each["value"] for each in container["env"] if each["name"] == "RECIPE")
    assert (ROOT / recipe.removeprefix("/app/")).is_file()
