"""models.yaml and the management API against a real TorchServe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from click.testing import Result
from typer.testing import CliRunner

from ddpm_service.archive import pack
from ddpm_service.cli import app
from ddpm_service.torchserve.converge import Converger, Report
from ddpm_service.torchserve.desired import Desired, DesiredModel, load, save
from ddpm_service.torchserve.management import Management, ManagementError
from ddpm_service.torchserve.server import TorchServe

pytestmark = pytest.mark.torchserve

BROKEN_HANDLER = """
def handle(data, ctx):
    raise RuntimeError("the weights are not finite")
"""
NO_IMAGE_HANDLER = """
def handle(data, ctx):
    return None if data is None else ["sorry"] * len(data)
"""


@pytest.fixture
def management(torchserve: TorchServe) -> Management:
    return Management(torchserve.management_url)


@pytest.fixture
def apply(torchserve: TorchServe, management: Management, store: Path):
    """Apply a desired state; everything is unregistered afterwards."""
    converger = Converger(management, torchserve.inference_url, store, reason=torchserve.reason)

    def apply(document: dict) -> Report:
        return converger.apply(Desired.model_validate({"models": document}))

    yield apply
    apply({})


def answer(torchserve: TorchServe, path: str) -> str:
    return requests.post(f"{torchserve.inference_url}/predictions/{path}", json={}, timeout=30).json()["images"][0]


def test_two_versions_stand_side_by_side_and_the_default_moves_and_returns(apply, management, torchserve, make_toy):
    versions = {"1.0": make_toy("a", "1.0"), "2.0": make_toy("a", "2.0")}

    assert not apply({"a": {"default": "2.0", "versions": versions}}).failed

    assert [answer(torchserve, path) for path in ("a", "a/1.0", "a/2.0")] == ["2.0", "1.0", "2.0"]
    apply({"a": {"default": "1.0", "versions": versions}})
    assert answer(torchserve, "a") == "1.0"
    apply({"a": {"default": "2.0", "versions": {"2.0": versions["2.0"]}}})
    assert answer(torchserve, "a") == "2.0"
    assert [served.version for served in management.describe("a")] == ["2.0"]


def test_applying_the_same_again_does_nothing(apply, make_toy):
    document = {"a": {"default": "1.0", "versions": {"1.0": make_toy("a", "1.0")}}}

    assert apply(document).done
    assert apply(document) == Report()


def test_a_model_no_longer_wanted_goes_with_all_its_versions(apply, management, make_toy):
    apply({"a": {"default": "1.0", "versions": {v: make_toy("a", v) for v in ("1.0", "2.0")}}})

    apply({})

    assert management.models() == []
    assert management.describe("a") == []
    assert management.default("a") is None


def test_a_version_without_worker_is_registered_but_not_loaded(apply, management, make_toy):
    versions = {"1.0": make_toy("a", "1.0"), "2.0": {"archive": make_toy("a", "2.0"), "workers": 0}}

    apply({"a": {"default": "1.0", "versions": versions}})

    assert {served.version: served.ready for served in management.describe("a")} == {"1.0": True, "2.0": False}
    versions["2.0"] = {"archive": "a_2.0.mar", "workers": 1}
    apply({"a": {"default": "1.0", "versions": versions}})
    assert all(served.ready for served in management.describe("a"))


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (BROKEN_HANDLER, "RuntimeError: the weights are not finite"),
        (NO_IMAGE_HANDLER, "it made no image"),
        ("import no_such_package", "No module named 'no_such_package'"),
    ],
    ids=["fails to load", "makes no image", "misses a package"],
)
def test_a_broken_version_is_reported_and_disturbs_nothing(handler, why, apply, management, torchserve, make_toy):
    good = make_toy("a", "1.0")
    apply({"a": {"default": "1.0", "versions": {"1.0": good}}})

    broken = make_toy("a", "3.0", handler=handler)
    report = apply({"a": {"default": "3.0", "versions": {"3.0": broken}}})

    assert why in report.failed["a", "3.0"]
    assert answer(torchserve, "a") == "1.0"
    assert [served.version for served in management.describe("a")] == ["1.0"]


def test_a_model_whose_files_have_changed_is_not_served(apply, management, store, tmp_path, write_toy_bundle):
    bundle = write_toy_bundle(tmp_path / "bundle", name="b")
    with (bundle / "scheduler" / "scheduler_config.json").open("a") as file:
        file.write("\n")

    report = apply({"b": {"default": "1.0", "versions": {"1.0": pack(bundle, store).name}}})

    assert "scheduler/scheduler_config.json has changed" in report.failed["b", "1.0"]
    assert management.models() == []


def test_an_archive_must_hold_the_version_it_is_listed_as(apply, management, make_toy):
    report = apply({"a": {"default": "1.0", "versions": {"1.0": make_toy("a", "9.0")}}})

    assert report.failed["a", "1.0"] == "a_9.0.mar holds a 9.0, not a 1.0"
    assert management.models() == []


def test_a_version_never_changes_its_archive(apply, make_toy, store):
    apply({"a": {"default": "1.0", "versions": {"1.0": make_toy("a", "1.0")}}})
    (store / "other.mar").write_bytes((store / "a_1.0.mar").read_bytes())

    report = apply({"a": {"default": "1.0", "versions": {"1.0": "other.mar"}}})

    assert "give other.mar a version of its own" in report.failed["a", "1.0"]


def test_the_default_is_not_removed_before_the_others(apply, management, make_toy):
    apply({"a": {"default": "1.0", "versions": {v: make_toy("a", v) for v in ("1.0", "2.0")}}})

    with pytest.raises(ManagementError) as refusal:
        management.unregister("a", "1.0")

    assert refusal.value.status == 403


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.mar", "file:///etc/hostname", "../a.mar", "nothing.mar"])
def test_archives_come_from_the_model_store_alone(url, management):
    with pytest.raises(ManagementError) as refusal:
        management.register(url)

    assert refusal.value.status == 404


def test_nobody_at_the_address_is_told(store):
    with pytest.raises(ManagementError, match=r"no TorchServe answers at http://127.0.0.1:9"):
        Management("http://127.0.0.1:9").models()


@pytest.fixture
def ddpm_models(served, tmp_path) -> Callable[..., Result]:
    """`ddpm models …` beside a TorchServe that no `ddpm serve` looks after; its models are in a models.yaml."""
    models = {
        name: DesiredModel(
            default=served.management.default(name),
            versions={each.version: {"archive": each.archive} for each in served.management.describe(name)},
        )
        for name in served.management.models()
    }
    save(Desired(models=models), tmp_path / "models.yaml")

    def ddpm_models(*words: str) -> Result:
        config = served.server.temporary / "config.properties"
        places = ["--models", str(tmp_path / "models.yaml"), "--config", str(config)]
        return CliRunner().invoke(app, ["models", words[0], *places, *words[1:]])

    return ddpm_models


def test_without_a_front_door_a_version_is_unloaded_after_its_streams(served, ddpm_models, tmp_path):
    stream = served.stream("toy/2.0", num_inference_steps=150)
    stream.wait_for("started")

    unloaded = ddpm_models("scale", "toy", "2.0", "0")

    assert unloaded.exit_code == 0, unloaded.stderr
    assert "toy 2.0: unloaded" in unloaded.stderr.splitlines()
    stream.join(60)
    assert stream.names[-1] == "end"
    assert load(tmp_path / "models.yaml").models["toy"].versions["2.0"].workers == 0
    assert not next(each for each in served.management.describe("toy") if each.version == "2.0").workers
    assert ddpm_models("scale", "toy", "2.0", "1").exit_code == 0
    assert served.post("toy/2.0", {"num_inference_steps": 2}).ok


def test_where_no_torchserve_answers_nothing_is_written(served, ddpm_models, tmp_path):
    before = (tmp_path / "models.yaml").read_text()
    config = tmp_path / "config.properties"
    config.write_text("management_address=http://127.0.0.1:9\n")

    told = ddpm_models("unregister", "toy", "2.0", "--config", str(config))

    assert (told.exit_code, (tmp_path / "models.yaml").read_text()) == (1, before)
    assert told.stderr == "ddpm models unregister: no TorchServe answers at http://127.0.0.1:9 (ConnectionError)\n"
