"""What the manifests promise, read from the rendered objects."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from ddpm_service.gateway.health import router
from ddpm_service.gateway.settings import Settings
from ddpm_service.torchserve import desired
from ddpm_service.torchserve.guard import GRACE
from ddpm_service.torchserve.server import read_properties
from handlers.settings import read_settings
from tests.k8s.pod import ROOT, Object, one, render

SERVING = ("overlays/cpu", "overlays/gpu", "overlays/keda", "overlays/canary")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
UNITS = {"Mi": 2**20, "Gi": 2**30, "m": 1e-3}
# Measured on two cores, the slowest way that is served: seconds of one image's step (docs/operations.md).
SECONDS_PER_STEP = 0.008


def of_kind(folder: str, kind: str) -> list[Object]:
    return [each for each in render(folder) if each["kind"] == kind]


def workloads() -> list[Any]:
    """Every pod that is described anywhere: (folder, its template)."""
    found = [(folder, each) for folder in SERVING for each in of_kind(folder, "Deployment")]
    found += [("training", each) for each in of_kind("training", "Job")]
    filling = yaml.safe_load((ROOT / "k8s/examples/fill-volume.yaml").read_text())
    found.append(("examples", {"metadata": filling["metadata"], "spec": {"template": filling}}))
    return [
        pytest.param(folder, each["spec"]["template"], id=f"{folder}: {each['metadata']['name']}")
        for folder, each in found
    ]


def deployments() -> list[Any]:
    return [
        pytest.param(folder, each, id=f"{folder}: {each['metadata']['name']}")
        for folder in SERVING
        for each in of_kind(folder, "Deployment")
    ]


def containers(template: Object) -> list[Object]:
    return [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]


def serving(deployment: Object) -> Object:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


def number(quantity: str) -> float:
    unit = next((unit for unit in UNITS if quantity.endswith(unit)), "")
    return float(quantity.removesuffix(unit)) * UNITS.get(unit, 1)


def config(folder: str, name: str) -> dict[str, str]:
    return one(render(folder), "ConfigMap", name)["data"]


def mounted(deployment: Object, volume: str) -> Object:
    (found,) = (each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == volume)
    return found


all_workloads = pytest.mark.parametrize(("folder", "template"), workloads())
all_deployments = pytest.mark.parametrize(("folder", "deployment"), deployments())
all_serving = pytest.mark.parametrize("folder", SERVING)


# Pods that can do no harm


@all_workloads
def test_pods_run_as_nobody_and_may_write_nowhere_but_in_tmp(folder, template):
    pod = template["spec"]
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 10001, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(template):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
        assert writable <= {"training": {"/tmp", "/runs", "/dev/shm"}, "examples": {"/models"}}.get(folder, {"/tmp"})
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))


@all_workloads
def test_every_container_has_requests_and_limits(folder, template):
    for container in containers(template):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= requests.keys() == limits.keys()
        assert all(number(requests[key]) <= number(limits[key]) for key in requests)
        assert requests["memory"] == limits["memory"]  # memory that is promised twice ends in a kill
        assert number(limits["cpu"]) % 1 == 0


def test_every_image_is_ours_and_of_this_version():
    images = {
        (folder, container["image"])
        for folder, template in (parameter.values for parameter in workloads())
        for container in containers(template)
    }
    tags = dict.fromkeys(["overlays/cpu", "examples"], VERSION)
    tags |= dict.fromkeys(SERVING[1:], f"{VERSION}-cuda") | {"training": f"{VERSION}-cuda-train"}
    assert images == {(folder, f"ddpm-lookalike:{tag}") for folder, tag in tags.items()}


# Probes and the end


@all_deployments
def test_probes_ask_paths_that_the_front_door_has(folder, deployment):
    container = serving(deployment)
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    # Alive is the process alone, or a busy GPU would kill pods.
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert set(paths.values()) <= {route.path for route in router.routes}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}
    assert {container[name]["httpGet"]["port"] for name in paths} == {"http"}


@all_deployments
def test_a_model_may_load_as_long_as_torchserve_lets_it(folder, deployment):
    settings = yaml.safe_load((ROOT / "handlers/model-config.yaml").read_text())
    probe = serving(deployment)["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert settings["startupTimeout"] + 60 < patience < deployment["spec"]["progressDeadlineSeconds"]


@all_deployments
def test_the_longest_job_and_all_before_it_end_within_the_grace_period(folder, deployment):
    (reference,) = serving(deployment)["envFrom"]
    settings = Settings.read(config(folder, reference["configMapRef"]["name"]))
    handler = yaml.safe_load((ROOT / "handlers/model-config.yaml").read_text())["handler"]
    longest = handler["max_work"] * SECONDS_PER_STEP
    queue = settings.max_open * 10 * 4 * SECONDS_PER_STEP  # a full queue of what people ask for by default
    assert longest + queue < settings.drain_seconds
    sleep, pause = serving(deployment)["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert int(pause) + settings.drain_seconds + GRACE + 5 < grace


@all_deployments
def test_a_failed_start_is_told_in_the_pods_status(folder, deployment):
    for container in containers(deployment["spec"]["template"]):
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


# Settings, secrets, models


@all_deployments
def test_settings_are_known_and_a_changed_one_rolls_the_pods(folder, deployment):
    (reference,) = serving(deployment)["envFrom"]
    name = reference["configMapRef"]["name"]
    data = config(folder, name)
    assert len(data) == len(Settings.read(data).model_fields_set)
    assert name.count("-") == 2 + (deployment["metadata"]["name"] != "ddpm")  # ddpm-settings[-canary]-HASH
    assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False


@all_deployments
def test_tokens_come_from_a_secret_that_is_not_in_these_files_and_may_rotate(folder, deployment):
    volume = mounted(deployment, "tokens")["secret"]
    assert volume == {"secretName": "ddpm-tokens", "defaultMode": 0o440}  # not optional: without it no pod starts
    (mount,) = (each for each in serving(deployment)["volumeMounts"] if each["name"] == "tokens")
    assert "subPath" not in mount
    assert f"--tokens={mount['mountPath']}/tokens" in serving(deployment)["args"]
    assert not any("insecure" in word for word in serving(deployment)["args"])
    for each in render(folder):
        assert each["kind"] != "Secret"
        assert not any("token" in key.lower() and "PER_TOKEN" not in key for key in each.get("data", {}))


@all_deployments
def test_models_yaml_is_one_that_the_service_takes(folder, deployment, tmp_path):
    name = mounted(deployment, "models")["configMap"]["name"]
    (tmp_path / "models.yaml").write_text(config(folder, name)["models.yaml"])
    wanted = desired.load(tmp_path / "models.yaml")
    assert wanted.models
    if folder == "overlays/cpu":  # what is in the image
        assert wanted == desired.load(ROOT / "models.yaml")


@pytest.mark.parametrize("folder", ["overlays/gpu", "overlays/keda", "overlays/canary"])
def test_archives_from_the_volume_are_checked_before_the_service_starts(folder):
    for deployment in of_kind(folder, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (check,) = pod["initContainers"]
        store = {"name": "model-store", "mountPath": "/app/model_store", "readOnly": True}
        assert store in check["volumeMounts"]
        assert store in serving(deployment)["volumeMounts"]
        assert check["workingDir"] == store["mountPath"]
        lists = mounted(deployment, "models"), mounted(deployment, "checksums")
        assert all(each["configMap"]["name"] for each in lists)
        models = {"name": "models", "mountPath": "/etc/ddpm/models", "readOnly": True}
        assert models in check["volumeMounts"]
        assert models in serving(deployment)["volumeMounts"]  # the same list for both
        sums = {"name": "checksums", "mountPath": "/etc/ddpm/checksums", "readOnly": True}
        assert sums in check["volumeMounts"]
        assert sums in serving(deployment)["volumeMounts"]
        claim = mounted(deployment, "model-store")["persistentVolumeClaim"]
        assert one(render(folder), "PersistentVolumeClaim", claim["claimName"])


@all_deployments
def test_tmp_has_room_for_unpacked_archives_on_disk(folder, deployment):
    tmp = mounted(deployment, "tmp")["emptyDir"]
    bundles = sum(file.stat().st_size for file in (ROOT / "models").rglob("*") if file.is_file())
    archives = bundles if folder == "overlays/cpu" else 2 * 460e6  # two versions of a 256 px model
    assert number(tmp["sizeLimit"]) >= 2.5 * archives
    assert "medium" not in tmp
    limits = serving(deployment)["resources"]["limits"]
    assert number(tmp["sizeLimit"]) < number(limits["ephemeral-storage"])


# Who reaches what


@all_serving
def test_a_service_shows_http_and_grpc_alone(folder):
    for service in of_kind(folder, "Service"):
        assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [
            (8000, "http"),
            (8001, "grpc"),
        ]


@all_serving
def test_the_network_lets_nothing_else_in_and_nothing_out(folder):
    policies = [each["spec"] for each in of_kind(folder, "NetworkPolicy")]
    deny, serving_policy = sorted(policies, key=lambda spec: len(spec["podSelector"]))
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert serving_policy["policyTypes"] == ["Ingress"]  # so nothing goes out, by the other one
    public, private = serving_policy["ingress"]
    assert ([port["port"] for port in public["ports"]], "from" in public) == ([8000, 8001], False)
    assert [port["port"] for port in private["ports"]] == [8002]
    (source,) = private["from"]
    assert source == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def test_torchserve_is_on_loopback_so_that_no_policy_has_to_hide_it():
    properties = read_properties(ROOT / "config.properties")
    addresses = [value for key, value in properties.items() if key.endswith("_address")]
    assert len(addresses) >= 5
    assert {value.removeprefix("http://").partition(":")[0] for value in addresses} == {"127.0.0.1"}


@all_serving
def test_selectors_find_their_pods_and_no_others(folder):
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(folder, "Deployment")]

    def found(selector: dict[str, str]) -> int:
        return sum(selector.items() <= labels.items() for labels in pods)

    for deployment in of_kind(folder, "Deployment"):
        assert found(deployment["spec"]["selector"]["matchLabels"]) == 1
        (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert (spread["topologyKey"], found(spread["labelSelector"]["matchLabels"])) == ("kubernetes.io/hostname", 1)
    for service in of_kind(folder, "Service"):
        assert found(service["spec"]["selector"]) == 1
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for each in of_kind(folder, kind):
            selector = each["spec"].get("selector") or each["spec"]["podSelector"]
            assert found(selector.get("matchLabels", {})) == len(pods)
    monitor = one(render("overlays/monitoring"), "PodMonitor")["spec"]
    assert found(monitor["selector"]["matchLabels"]) == len(pods)
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == ["metrics"]


# Rollouts, GPUs, canary, autoscaling


@all_serving
def test_nodes_may_be_emptied_one_pod_at_a_time(folder):
    assert one(render(folder), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_where_gpus_are_scarce_a_rollout_needs_no_spare_one():
    for folder in ("overlays/gpu", "overlays/keda", "overlays/canary"):
        for deployment in of_kind(folder, "Deployment"):
            assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (deployment,) = of_kind("overlays/cpu", "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("folder", ["overlays/gpu", "overlays/keda", "overlays/canary", "training"])
def test_gpu_pods_ask_for_a_gpu_and_go_where_there_are_some(folder):
    for kind in ("Deployment", "Job"):
        for each in of_kind(folder, kind):
            pod = each["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"  # one: TorchServe has a worker a version
            assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
            assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


@all_deployments
def test_a_pod_that_is_promised_a_gpu_never_serves_without(folder, deployment):
    environment = {each["name"]: each["value"] for each in serving(deployment).get("env", ())}
    settings = read_settings(None, environment)
    assert settings.require_gpu == ("nvidia.com/gpu" in serving(deployment)["resources"]["limits"])
    Settings.read(environment)  # the front door lets it be


def test_the_canary_is_a_second_deployment_with_a_share_of_the_requests():
    objects = render("overlays/canary")
    stable, canary = one(objects, "Deployment"), one(objects, "Deployment", "ddpm-canary")
    assert mounted(stable, "models") != mounted(canary, "models")
    assert mounted(stable, "checksums") == mounted(canary, "checksums")
    (rule,) = one(objects, "HTTPRoute")["spec"]["rules"]
    weights = {each["name"]: each["weight"] for each in rule["backendRefs"]}
    assert weights == {"ddpm": 95, "ddpm-canary": 5}
    assert rule["timeouts"] == {"request": "0s"}  # no limit: streams
    for name in weights:
        assert one(objects, "Service", name)


def test_pods_are_scaled_on_our_own_queue_and_the_autoscaler_alone_says_how_many():
    scaler = one(render("overlays/keda"), "ScaledObject")["spec"]
    deployment = one(render("overlays/keda"), "Deployment", scaler["scaleTargetRef"]["name"])
    assert "replicas" not in deployment["spec"]
    assert one(render("overlays/gpu"), "Deployment")["spec"]["replicas"] == scaler["minReplicaCount"] == 2
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaler["triggers"]}
    assert "ddpm_gateway_queue_wait_seconds_bucket" in queries["queue-wait"]
    assert "ddpm_backlog_seconds" in queries["backlog"]
    # One metric is a time, the same for one pod and for many; the other is a sum, shared among them.
    assert {trigger["name"]: trigger["metricType"] for trigger in scaler["triggers"]} == {
        "queue-wait": "Value",
        "backlog": "AverageValue",
    }


# Ways in, Cloud Run


def test_the_ingress_passes_streams_on_at_once_and_for_as_long_as_they_last():
    for ingress in yaml.safe_load_all((ROOT / "k8s/examples/ingress.yaml").read_text()):
        notes = {key.rpartition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}
        assert int(notes["proxy-read-timeout"]) >= 3600
        assert ingress["spec"]["tls"]
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        port = path["backend"]["service"]["port"]["name"]
        assert port in {each["name"] for each in one(render("overlays/cpu"), "Service")["spec"]["ports"]}
        if port == "http":
            assert (notes["proxy-buffering"], notes["proxy-request-buffering"]) == ("off", "off")
            assert notes["proxy-body-size"] == f"{Settings().max_bytes // 2**20}m"


def test_the_front_door_goes_by_the_names_of_its_ways_in():
    (reference,) = serving(one(render("overlays/cpu"), "Deployment"))["envFrom"]
    hosts = Settings.read(config("overlays/cpu", reference["configMapRef"]["name"])).hosts
    ingresses = yaml.safe_load_all((ROOT / "k8s/examples/ingress.yaml").read_text())
    public = {rule["host"] for ingress in ingresses for rule in ingress["spec"]["rules"]} - {"faces-grpc.example.com"}
    routed = set(one(render("overlays/canary"), "HTTPRoute")["spec"]["hostnames"])
    service = one(render("overlays/cpu"), "Service")["metadata"]
    assert public | routed | {service["name"], f"{service['name']}.{service['namespace']}"} <= set(hosts)
    assert {"*.svc", "*.svc.cluster.local"} <= set(hosts)


def test_cloud_run_asks_the_same_probes_and_drains_within_its_ten_seconds():
    template = yaml.safe_load((ROOT / "k8s/cloudrun/service.yaml").read_text())["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["image"].endswith(f"/ddpm-lookalike:{VERSION}-cuda12")  # its driver is older than CUDA 13's
    assert read_settings(None, {each["name"]: each["value"] for each in container["env"]}).require_gpu
    assert container["startupProbe"]["httpGet"] == {"path": "/readyz", "port": 8000}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8000}
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] <= 240
    settings = Settings.read({each["name"]: each["value"] for each in container["env"]})
    assert settings.drain_seconds < 10
    assert "*.run.app" in settings.hosts
    assert container["ports"] == [{"name": "http1", "containerPort": 8000}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert template["spec"]["containerConcurrency"] <= settings.max_open
