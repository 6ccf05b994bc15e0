"""A toy model on disk: a bundle with network code of its own, which is quick to load and fails when it is told to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser import browser as browser

TOY_NETWORK = '''
import time

import torch
from torch import nn


class Toy(nn.Module):
    """Predicts something that depends on its input; each call takes a while; a request of 7 steps fails."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.config = {"_class_name": "Toy", "seconds": seconds}
        self.seconds = seconds
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, timestep):
        if (timestep == 856).any():  # the second of 7 calls
            raise RuntimeError("what was computed: 0x5ec2e7")
        time.sleep(self.seconds)
        return torch.tanh(self.mix(x))
'''


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, aloud, what needs a program that Python cannot bring and this machine lacks; in CI nothing is."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs("chromium"))
    if os.environ.get("CI"):
        return
    missing = {
        item: program
        for item in items
        for marker in item.iter_markers("needs")
        for program in marker.args
        if shutil.which(program) is None
    }
    if missing:
        config.hook.pytest_deselected(items=list(missing))
        items[:] = [item for item in items if item not in missing]
        programs = ", ".join(sorted(set(missing.values())))
        print(f"\n{len(missing)} tests left out: they need {programs}, which your system's packages bring")


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
