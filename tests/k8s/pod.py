"""A pod on this machine: the rendered container's arguments, settings and init container, run for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import requests
import yaml

from ddpm_service.torchserve.server import Ports, read_properties

ROOT = Path(__file__).parents[2]
Object = dict[str, Any]
TOKEN = "a-token-of-the-tests"
# What no Python package carries.
TOOLS = {
    "kubectl": "https://kubernetes.io/docs/tasks/tools",
    "prometheus": "Debian's package prometheus",
    "promtool": "Debian's package prometheus",
}


def tool(name: str) -> str:
    """The path of a program that these tests run."""
    path = shutil.which(name)
    assert path, f"{name} is needed: {TOOLS[name]}"
    return path


@cache
def render(folder: str) -> tuple[Object, ...]:
    """The objects that `kubectl apply -k` would send."""
    done = subprocess.run([tool("kubectl"), "kustomize", str(ROOT / "k8s" / folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def one(objects: tuple[Object, ...], kind: str, name: str = "ddpm") -> Object:
    (found,) = (each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


class Cluster:
    """What is mounted into pods: a model store, models.yaml, checksums, and tokens.

    A pod's paths are folders of `folder`: /etc/ddpm/tokens is `folder`/tokens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "model_store"
        self.deployment = one(render("overlays/gpu"), "Deployment")
        for name in ("model_store", "models", "tokens", "checksums"):
            (folder / name).mkdir(parents=True)
        (folder / "checksums" / "models.sha256").touch()
        (folder / "tokens" / "tokens").write_text(f"tests {TOKEN}\n")

    @property
    def models(self) -> Path:
        return self.folder / "models" / "models.yaml"

    def serve(self, default: str, *versions: str, model: str = "toy") -> None:
        archives = {version: f"{model}_{version}.mar" for version in versions}
        self.models.write_text(yaml.safe_dump({"models": {model: {"default": default, "versions": archives}}}))

    def list_checksums(self) -> None:
        """What the operator does after filling the volume."""
        done = subprocess.run("sha256sum *.mar", shell=True, cwd=self.store, capture_output=True, text=True, check=True)
        (self.folder / "checksums" / "models.sha256").write_text("# by hand\n" + done.stdout)

    def revise(self, folder: Path) -> Cluster:
        """The same volume and secret under other ConfigMaps: what a rollout gives to its new pods."""
        next_one = Cluster(folder)
        for name in ("model_store", "tokens"):
            shutil.rmtree(folder / name)
            (folder / name).symlink_to(self.folder / name)
        return next_one

    def local(self, text: str) -> str:
        return text.replace("/etc/ddpm", str(self.folder)).replace("/app", str(self.folder))

    def init(self) -> subprocess.CompletedProcess[str]:
        """Run the init container."""
        (container,) = self.deployment["spec"]["template"]["spec"]["initContainers"]
        command = [self.local(word) for word in container["command"]]
        folder = self.local(container["workingDir"])
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)

    def pod(self, **environment: str) -> Pod:
        return Pod(self, environment)


class Pod:
    """The container: `ddpm serve` as the deployment starts it, on ports of its own."""

    def __init__(self, cluster: Cluster, environment: dict[str, str]) -> None:
        front = Ports.free()
        self.url, self.metrics = f"http://127.0.0.1:{front.inference}", f"127.0.0.1:{front.metrics}"
        properties = read_properties(ROOT / "config.properties")
        for key in ("metrics_config", "vmargs"):
            properties[key] = properties[key].replace("handlers/", f"{ROOT}/handlers/")
        properties["model_store"] = str(cluster.store)
        self.config = cluster.folder / f"config-{front.inference}.properties"
        self.config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        (container,) = cluster.deployment["spec"]["template"]["spec"]["containers"]
        told = {each["name"]: cluster.local(each["value"]) for each in container.get("env", []) if "value" in each}
        told.pop("DDPM_REQUIRE_GPU", None)  # no GPU is here
        command = [sys.executable, "-m", "ddpm_service", "serve"]
        command += ["--config", str(self.config)]
        command += [cluster.local(word) for word in container["args"]]
        command += ["--port", str(front.inference), "--grpc-port", "0", "--metrics-port", str(front.metrics)]
        self._output = cluster.folder / f"output-{front.inference}"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | told | environment
            )

    def ends(self) -> int:
        """Wait for its end; return the exit status."""
        return self.process.wait(120)

    @property
    def said(self) -> str:
        return self._output.read_text()

    @property
    def ready(self) -> bool:
        try:
            return requests.get(self.url + "/readyz", timeout=10).status_code == 200
        except requests.ConnectionError:
            return False

    def wait_until_ready(self) -> None:
        self.wait(lambda: self.ready, "ready")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(1800):
            assert self.process.poll() is None, self.said
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(f"never {what}: {self.said[-2000:]}")

    def generate(self, path: str = "/predictions/toy", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {TOKEN}", **more.pop("headers", {})}
        if "data" not in more:
            more["json"] = more.pop("json", {})
        return requests.post(self.url + path, headers=headers, timeout=60, **more)

    def default(self) -> str:
        answer = requests.get(self.url + "/v1/models/toy", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
        return str(answer.json()["default_version"])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
