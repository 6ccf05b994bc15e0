"""A real Prometheus at the real service: every query of the dashboard, the rules and the autoscaler finds figures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from ddpm_service.archive import pack
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports
from ddpm_service.torchserve.sockets import Sockets
from tests.k8s.pod import Cluster, Pod, one, render, tool

pytestmark = pytest.mark.torchserve
# What kube-state-metrics tells, which is the cluster's.
_OF_THE_CLUSTER = "kube_pod_container_status_"


class Prometheus:
    """A Prometheus that looks at one pod every half second."""

    def __init__(self, folder: Path, target: str, rules: dict[str, Any]) -> None:
        port = Ports.free().metrics
        self.url = f"http://127.0.0.1:{port}/api/v1"
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        # The labels that the operator's PodMonitor sets.
        labels = {"namespace": "ddpm", "pod": "ddpm-0", "container": "ddpm"}
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [{"job_name": "ddpm", "static_configs": [{"targets": [target], "labels": labels}]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            tool("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
        ]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.url}/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        return [float(series["value"][1]) for series in self.get("query", query=query)["result"]]

    def wait_for(self, query: str) -> list[float]:
        values: list[float] = []
        for _ in range(900):
            try:
                values = [value for value in self.values(query) if value == value]
            except requests.ConnectionError:
                assert self.process.poll() is None, "Prometheus has ended"
            if values:
                return values
            time.sleep(0.1)
        pytest.fail(f"no figure for {query}")

    def wait_for_alert(self, name: str, state: str) -> None:
        for _ in range(900):
            rules = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
            (found,) = (rule for rule in rules if rule["name"] == name)
            if found["state"] == state:
                return
            time.sleep(0.1)
        pytest.fail(f"{name} stays {found['state']}")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, write_toy_bundle) -> Iterator[tuple[Pod, Prometheus]]:
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(folder)
    pack(write_toy_bundle(folder / "bundle", seconds=0.005), cluster.store)
    cluster.list_checksums()
    cluster.serve("1.0", "1.0")
    pod = cluster.pod()
    rules = one(render("overlays/monitoring"), "PrometheusRule")["spec"]
    prometheus = Prometheus(folder, pod.metrics, rules)
    try:
        pod.wait_until_ready()
        ask_for_everything(pod)
        for seen in ("ddpm_gateway_refusals_total", "ddpm_failed_total", "ddpm_rejected_total", "ddpm_images_total"):
            prometheus.wait_for(f"{seen} > 0")
        ask_for_everything(pod)  # so that each of them rises
        yield pod, prometheus
    finally:
        prometheus.process.terminate()
        prometheus.process.wait(30)
        pod.kill()


def ask_for_everything(pod: Pod) -> None:
    """Requests that are answered, fail, are rejected by the worker, and refused at the door."""
    stream = {"Accept": "application/x-ndjson"}
    assert pod.generate(json={"num_inference_steps": 3}).status_code == 200
    assert '"preview"' in pod.generate(json={"num_inference_steps": 4, "preview_every": 1}, headers=stream).text
    assert pod.generate(json={"num_inference_steps": 16}).status_code == 500
    assert pod.generate(data=b"no picture").status_code == 415
    assert pod.generate(headers={"Authorization": "Bearer nobody's"}).status_code == 401


def dashboard() -> list[str]:
    panels = json.loads(one(render("overlays/monitoring"), "ConfigMap", "ddpm-dashboard")["data"]["dashboard.json"])
    queries = [target["expr"] for panel in panels["panels"] for target in panel.get("targets", ())]
    return [query.replace("$namespace", "ddpm").replace("$__rate_interval", "1m") for query in queries]


def autoscaler() -> list[str]:
    triggers = one(render("overlays/keda"), "ScaledObject")["spec"]["triggers"]
    return [trigger["metadata"]["query"] for trigger in triggers]


def rules() -> list[str]:
    groups = one(render("overlays/monitoring"), "PrometheusRule")["spec"]["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("query", [*dashboard(), *autoscaler()])
def test_each_query_finds_figures(watched, query):
    assert watched[1].wait_for(query)


def test_each_metric_that_a_rule_names_is_there(watched):
    _, prometheus = watched
    named = set(re.findall(r"\b(?:ddpm_|kube_)\w+", " ".join(rules())))
    ours = {name for name in named if not name.startswith(_OF_THE_CLUSTER)}
    assert ours != named
    for name in sorted(ours):
        assert prometheus.wait_for(f"count({name})")


def test_the_figures_are_those_of_what_was_asked(watched):
    _, prometheus = watched
    prometheus.wait_for('ddpm_gateway_requests_total{outcome="done"} == 4')
    prometheus.wait_for('ddpm_gateway_requests_total{outcome="not_an_image"} == 2')
    prometheus.wait_for('ddpm_gateway_refusals_total{code="unauthorized"} == 2')
    prometheus.wait_for('ddpm_images_total{ModelName="toy", ModelVersion="1.0", Mode="none"} >= 4')
    prometheus.wait_for('ddpm_rejected_total{Reason="not_an_image"} == 2')
    prometheus.wait_for('ddpm_failed_total{Reason!=""} == 2')
    prometheus.wait_for('ddpm_gateway_version{model="toy", version="1.0", state="ready", default="yes"} == 1')
    prometheus.wait_for('ddpm_gateway_restarts_total{model="toy", version="1.0"} == 0')


def test_each_rule_is_evaluated_without_error(watched):
    _, prometheus = watched
    prometheus.wait_for("ddpm:failed:ratio_rate5m > 0")
    prometheus.wait_for("ddpm:waited_long:ratio_rate5m == 0")
    loaded = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(loaded) == len(rules())
    assert {(rule["health"], rule.get("lastError")) for rule in loaded} == {("ok", None)}


def test_a_worker_that_dies_is_counted(watched):
    pod, prometheus = watched
    served = Management(Sockets.of(pod.config).management).describe("toy")[0]
    os.kill(served.workers[0].pid, signal.SIGKILL)
    prometheus.wait_for('ddpm_gateway_restarts_total{model="toy", version="1.0"} == 1')
    prometheus.wait_for("ddpm_gateway_ready == 0")
    prometheus.wait_for("ddpm_gateway_ready == 1")


def test_a_service_that_has_gone_raises_its_alert(watched):
    pod, prometheus = watched
    prometheus.wait_for_alert("DdpmNothingReady", "inactive")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(60) == 0
    prometheus.wait_for_alert("DdpmNothingReady", "pending")  # until its two minutes are over
