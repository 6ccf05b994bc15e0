"""An archive in somebody else's TorchServe: plain settings, an environment without this repository."""

from __future__ import annotations

import io
import subprocess
import sysconfig
import venv
from pathlib import Path

import psutil
import pytest
import requests

from ddpm_service.archive import pack
from ddpm_service.torchserve.management import Management
from ddpm_service.torchserve.server import Ports, TorchServe

pytestmark = pytest.mark.torchserve
ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """An interpreter with our packages, but without what is installed as a link to the repository."""
    venv.create(tmp_path / "env", symlinks=True)
    packages = next((tmp_path / "env" / "lib").iterdir()) / "site-packages"
    # What a path file adds is searched for packages, but its own path files are not read.
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(tmp_path / "env" / "bin" / "python")


def test_an_archive_runs_on_its_own_code(elsewhere, tmp_path, write_toy_bundle, selfie):
    store = tmp_path / "store"
    archive = pack(write_toy_bundle(tmp_path / "bundle"), store)
    config = tmp_path / "config.properties"
    config.write_text("disable_token_authorization=true\nenable_model_api=true\nload_models=none\n")
    log = io.StringIO()
    missing = subprocess.run([elsewhere, "-c", "import ts, ddpm_core"], cwd=tmp_path, capture_output=True, text=True)
    assert missing.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'ddpm_core'"

    settings = Ports.free().settings() | {"model_store": str(store)}
    with TorchServe(config, settings, python=elsewhere, echo=log) as server:
        Management(server.management_url).register(archive.name)
        answer = requests.post(
            f"{server.inference_url}/predictions/toy", data=selfie, headers={"Accept": "application/json"}, timeout=60
        )
        worker = psutil.Process(Management(server.management_url).describe("toy")[0].workers[0].pid)
        command, path, folder = worker.cmdline(), worker.environ().get("PYTHONPATH", ""), Path(worker.cwd())

    assert len(answer.json()["images"]) == 5
    assert command[0] == elsewhere
    assert not folder.is_relative_to(ROOT)
    assert str(ROOT) not in path.split(":")
