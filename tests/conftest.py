"""A toy model on disk: a bundle with network code of its own, which is quick to load and fails when it is told to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpm_service.environment import set_defaults
from ddpm_service.torchserve import server
from tests.browser import browser as browser

# The processes of one run of the tests (pytest-xdist) stand beside each other: none waits while it spins, and none is
# offered a port that another was offered.
set_defaults()
# Networks of the tests are so small that a second thread only waits. A model's worker counts its threads itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A TorchServe of the tests lives for a minute or two, in which Java's second compiler costs more than it brings.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
_OF = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
server.CANDIDATES = (port for port in server.CANDIDATES if port % _OF == _WORKER)

TOY_NETWORK = '''
import time

import torch
from torch import nn


class Toy(nn.Module):
    """Predicts something that depends on its input; each call takes a while; a request of 16 steps fails."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.config = {"_class_name": "Toy", "seconds": seconds}
        self.seconds = seconds
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, timestep):
        if (timestep == 471).any():  # the twelfth of 16 calls, a level that hardly another number of calls meets
            raise RuntimeError("what was computed: 0x5ec2e7")
        time.sleep(self.seconds)
        return torch.tanh(self.mix(x))
'''


# What Python cannot bring, and the tests that need it; they are named from the tests' folder.
NEEDS = {
    "caddy": ("e2e/test_proxy.py",),
    "chromium": ("ddpm_service/page", "e2e/test_page.py", "e2e/test_other_origins.py"),
    "kubectl": ("k8s", "e2e/test_monitoring.py", "e2e/test_delivery.py"),
    "prometheus": ("k8s/test_rules.py", "e2e/test_monitoring.py"),
}


def missing(path: Path) -> list[str]:
    """Programs that the tests at a path need and this machine lacks; in CI nothing is left out."""
    if os.environ.get("CI"):
        return []
    here = path.relative_to(Path(__file__).parent)
    return [
        program
        for program, places in NEEDS.items()
        if any(here == Path(place) or Path(place) in here.parents for place in places) and not shutil.which(program)
    ]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what cannot run here."""
    return bool(missing(collection_path)) or None


# Files that start services and browsers take longest: they come first, so that none of them is the last one at work.
LONGEST_FIRST = ("e2e", "k8s", "handlers", "ddpm_service", "ddpm_core", "ddpm_api")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the tests into the order in which their files are given out."""
    root = Path(__file__).parent
    rank = {folder: number for number, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(root).parts[0], len(rank)))


def pytest_report_header() -> list[str]:
    """Say what was left out, and why."""
    gone = [program for program in NEEDS if not os.environ.get("CI") and not shutil.which(program)]
    return [f"left out, for want of {program}: tests/{', tests/'.join(NEEDS[program])}" for program in gone]


WriteToy = Callable[..., Path]


@pytest.fixture(scope="session")
def write_toy_bundle() -> WriteToy:
    """Write the toy model into a folder: 32 px, for human faces."""

    def write(folder: Path, *, name: str = "toy", version: str = "1.0", seconds: float = 0.0) -> Path:
        from ddpm_core.bundle import Manifest, NetworkCode, build_network, write_bundle
        from ddpm_core.denoiser import Prediction

        folder.mkdir(parents=True)
        (folder / "toy.py").write_text(TOY_NETWORK)
        manifest = Manifest(
            name=name,
            version=version,
            domain="human_face",
            image_size=32,
            prediction_type=Prediction.EPSILON,
            network=NetworkCode(file="toy.py", network="Toy"),
        )
        network = build_network({"_class_name": "Toy", "seconds": seconds}, (folder / "toy.py", "Toy"))
        scheduler = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
        write_bundle(folder, network, scheduler, manifest, "A toy.")
        return folder

    return write
