"""How models reach the service: the steps of docs/operations.md rehearsed with traffic, and what goes wrong early."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from ddpm_service.archive import pack
from tests.k8s.pod import Cluster, Pod

pytestmark = pytest.mark.torchserve


@pytest.fixture(scope="module")
def archives(tmp_path_factory, write_toy_bundle) -> Path:
    """Two versions of a model, packed."""
    folder = tmp_path_factory.mktemp("archives")
    for version in ("1.0", "2.0"):
        pack(write_toy_bundle(folder / version, version=version, seconds=0.003), folder)
        shutil.rmtree(folder / version)
    return folder


@pytest.fixture
def cluster(tmp_path, archives) -> Cluster:
    """A volume with the first version, served as the default; its checksum is listed."""
    cluster = Cluster(tmp_path / "cluster")
    shutil.copy(archives / "toy_1.0.mar", cluster.store)
    cluster.list_checksums()
    cluster.serve("1.0", "1.0")
    return cluster


@pytest.fixture
def start(request):
    """Start a pod as the kubelet does: the init container, then the service; return it when it is ready."""

    def start(cluster: Cluster) -> Pod:
        checked = cluster.init()
        assert checked.returncode == 0, checked.stdout
        pod = cluster.pod(DDPM_RATE_PER_MINUTE="100000")
        request.addfinalizer(pod.kill)
        pod.wait_until_ready()
        return pod

    return start


class Service:
    """Requests to whichever pods are its endpoints now, from several clients at once, about ten a second."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = pods
        self.seen: Counter[tuple[int, str]] = Counter()
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask, args=(i,)) for i in range(3)]

    def _ask(self, turn: int) -> None:
        while not self._stop.wait(0.2):
            turn += 1
            try:
                answer = self.pods[turn % len(self.pods)].generate(json={"num_inference_steps": 20})
                seen = answer.status_code, answer.json().get("version", answer.text)
            except requests.RequestException as error:
                seen = 0, repr(error)
            with self._news:
                self.seen[seen] += 1
                self._news.notify_all()

    def wait_for(self, version: str) -> None:
        """Wait until the next few requests have been answered by this version."""
        with self._news:
            enough = self.seen[200, version] + 6
            assert self._news.wait_for(lambda: self.seen[200, version] >= enough, 60), self.seen

    def replace(self, old: Pod, new: Pod) -> None:
        """A rollout: the new pod is ready and gets requests; the old one gets none any more, and is told to stop."""
        self.pods = (old, new)
        self.pods = (new,)
        time.sleep(1)  # preStop: who has just chosen the old one still reaches it
        old.process.send_signal(signal.SIGTERM)
        assert old.ends() == 0

    @contextmanager
    def traffic(self) -> Iterator[None]:
        for client in self._clients:
            client.start()
        try:
            yield
        finally:
            self._stop.set()
            for client in self._clients:
                client.join(60)


def ddpm_models(cluster: Cluster, pod: Pod, *words: str) -> None:
    """`ddpm models …`, as it is typed beside a running service."""
    command = [sys.executable, "-m", "ddpm_service", "models", *words]
    command += ["--models", str(cluster.models), "--config", str(pod.config)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def test_on_one_machine_a_version_is_added_made_default_rolled_back_and_survives_a_restart(cluster, start, archives):
    pod = start(cluster)
    service = Service(pod)
    with service.traffic():
        service.wait_for("1.0")

        shutil.copy(archives / "toy_2.0.mar", cluster.store)
        cluster.list_checksums()
        ddpm_models(cluster, pod, "register", "toy_2.0.mar", "--default")
        pod.wait(lambda: pod.default() == "2.0", "2.0 by default")
        service.wait_for("2.0")

        ddpm_models(cluster, pod, "set-default", "toy", "1.0")
        pod.wait(lambda: pod.default() == "1.0", "1.0 by default")
        service.wait_for("1.0")

        successor = start(cluster)
        assert successor.default() == "1.0"
        service.replace(pod, successor)
        service.wait_for("1.0")
        assert successor.generate("/predictions/toy/2.0").json()["version"] == "2.0"
    assert service.seen.keys() == {(200, "1.0"), (200, "2.0")}


def test_in_a_cluster_a_rollout_brings_a_version_and_its_undo_takes_it_back(cluster, start, tmp_path, archives):
    before = start(cluster)
    service = Service(before)
    with service.traffic():
        service.wait_for("1.0")

        shutil.copy(archives / "toy_2.0.mar", cluster.store)
        revised = cluster.revise(tmp_path / "revised")
        revised.serve("2.0", "1.0", "2.0")
        assert revised.init().stdout == "toy_1.0.mar has no line in models.sha256\n"
        revised.list_checksums()
        after = start(revised)
        service.replace(before, after)
        service.wait_for("2.0")

        undone = start(cluster)
        service.replace(after, undone)
        service.wait_for("1.0")
    assert service.seen.keys() == {(200, "1.0"), (200, "2.0")}


# What goes wrong, goes wrong before the pod is ready, and says why


def swap(cluster: Cluster) -> None:
    (cluster.store / "toy_1.0.mar").write_bytes(b"another model")


def remove(cluster: Cluster) -> None:
    (cluster.store / "toy_1.0.mar").unlink()


def forget(cluster: Cluster) -> None:
    (cluster.folder / "checksums" / "models.sha256").write_text("")


def name_alike(cluster: Cluster) -> None:
    """A line for toy_1x0.mar says nothing about toy_1.0.mar."""
    file = cluster.folder / "checksums" / "models.sha256"
    file.write_text(file.read_text().replace("1.0", "1x0"))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (swap, "toy_1.0.mar is not the one of models.sha256"),
        (remove, "toy_1.0.mar is not on the model volume, or cannot be read"),
        (forget, "toy_1.0.mar has no line in models.sha256"),
        (name_alike, "toy_1.0.mar has no line in models.sha256"),
    ],
)
def test_an_archive_that_is_not_the_listed_one_stops_the_pod_before_it_starts(cluster, spoil, line):
    assert cluster.init().returncode == 0
    spoil(cluster)
    checked = cluster.init()
    assert (checked.returncode, checked.stdout, checked.stderr) == (1, line + "\n", "")


def no_secret(cluster: Cluster) -> None:
    shutil.rmtree(cluster.folder / "tokens")


def empty_secret(cluster: Cluster) -> None:
    (cluster.folder / "tokens" / "tokens").write_text("\n")


def short_token(cluster: Cluster) -> None:
    (cluster.folder / "tokens" / "tokens").write_text("hunter2\n")


@pytest.mark.parametrize(
    ("environment", "spoil", "why"),
    [
        ({"DDPM_MAX_OPEN": "many"}, None, "DDPM_MAX_OPEN=many"),
        ({"DDPM_MAX_BYTE": "1024"}, None, "DDPM_MAX_BYTE is not a setting"),
        ({}, no_secret, "cannot be read"),
        ({}, empty_secret, "holds no token"),
        ({}, short_token, "line 1: a token has 16 characters or more"),
    ],
    ids=["value", "name", "no secret", "empty secret", "short token"],
)
def test_a_wrong_setting_ends_the_pod_at_once_with_one_line(cluster, environment, spoil, why):
    if spoil:
        spoil(cluster)
    pod = cluster.pod(**environment)
    assert pod.ends() == 1
    (line,) = pod.said.splitlines()
    assert line.startswith("ddpm serve: ")
    assert why in line
    assert "hunter2" not in line


def no_volume(cluster: Cluster) -> None:
    shutil.rmtree(cluster.store)


def no_models(cluster: Cluster) -> None:
    cluster.models.unlink()


def not_the_one_named(cluster: Cluster) -> None:
    cluster.serve("1.0", "1.0", model="other")
    (cluster.store / "toy_1.0.mar").rename(cluster.store / "other_1.0.mar")


def half_copied(cluster: Cluster) -> None:
    file = cluster.store / "toy_1.0.mar"
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_volume, "the model store .* does not exist"),
        (no_models, ".*models.yaml cannot be read: No such file"),
        (remove, "nothing can be served: toy 1.0: .*toy_1.0.mar does not exist"),
        (half_copied, "nothing can be served: toy 1.0: .*toy_1.0.mar is not an archive"),
        (not_the_one_named, "nothing can be served: other 1.0: other_1.0.mar holds toy 1.0, not other 1.0"),
    ],
)
def test_a_model_that_cannot_be_served_ends_the_pod_and_the_last_line_says_why(cluster, spoil, why, request):
    spoil(cluster)
    pod = cluster.pod()
    request.addfinalizer(pod.kill)
    while pod.process.poll() is None:
        assert not pod.ready
        time.sleep(0.1)
    assert pod.ends() == 1
    last = pod.said.splitlines()[-1]
    assert re.match(f"ddpm serve: {why}", last), last
