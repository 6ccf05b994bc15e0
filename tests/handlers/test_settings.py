"""model-config.yaml, metrics.yaml and the handler's settings fit each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from annotated_types import Le

from handlers.settings import Settings, read_settings

FOLDER = Path(__file__).parents[2] / "handlers"


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.safe_load((FOLDER / "model-config.yaml").read_text())


def test_the_packed_settings_are_the_defaults(config):
    assert read_settings(config["handler"], {}) == read_settings(None, {}) == Settings()


def test_the_engine_takes_in_as_many_requests_as_the_front_door_is_told():
    assert read_settings({"tick_seconds": 1.0}, {"DDPM_MAX_OPEN": "250"}) == Settings(capacity=250, tick_seconds=1.0)
    for wrong in ("many", "0", "1001"):
        with pytest.raises(ValueError, match=r"handler\.capacity: "):
            read_settings(None, {"DDPM_MAX_OPEN": wrong})


def test_torchserve_never_queues_and_never_kills_a_working_worker(config):
    settings = read_settings(config["handler"])

    most = next(bound.le for bound in Settings.model_fields["capacity"].metadata if isinstance(bound, Le))
    assert config["batchSize"] > most
    assert config["responseTimeout"] >= 2 * settings.grpc_seconds
    assert (config["minWorkers"], config["maxWorkers"], config["continuousBatching"]) == (1, 1, True)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"capacty": 3}, r"handler\.capacty: .* \(known: capacity, max_work, "),
        ({"capacity": 0}, r"handler\.capacity: .*greater than or equal to 1"),
        ({"capacity": "many"}, r"handler\.capacity: .*integer"),
        ({"tick_seconds": float("nan")}, r"handler\.tick_seconds: "),
    ],
)
def test_a_wrong_setting_is_named(section, why):
    with pytest.raises(ValueError, match=why):
        read_settings(section)


def test_no_two_figures_share_their_list_of_dimensions():
    """TorchServe appends to each list: one shared by an anchor grows, and its figures are lost."""
    kinds = yaml.safe_load((FOLDER / "metrics.yaml").read_text())["model_metrics"]
    lists = [metric["dimensions"] for metrics in kinds.values() for metric in metrics]

    assert len({id(each) for each in lists}) == len(lists)
