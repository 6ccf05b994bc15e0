"""What the metrics port tells about versions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from ddpm_service.gateway.metrics import Metrics, VersionMetrics
from ddpm_service.torchserve.board import Board, State, VersionState


def watched() -> tuple[Board, CollectorRegistry]:
    board, metrics = Board(), Metrics()
    VersionMetrics(board, metrics)
    for version in ("1.0", "2.0"):
        board.put("a", version, VersionState(f"a_{version}.mar", State.LOADING))
    return board, metrics.registry


def restarts(registry: CollectorRegistry, version: str) -> float | None:
    return registry.get_sample_value("ddpm_gateway_restarts_total", {"model": "a", "version": version})


def test_a_version_that_was_ready_and_loads_again_was_restarted():
    board, registry = watched()
    assert restarts(registry, "1.0") is None
    board.move("a", "1.0", State.READY)
    board.move("a", "2.0", State.FAILED, "broken")
    assert (restarts(registry, "1.0"), restarts(registry, "2.0")) == (0, None)

    for _ in range(2):
        board.move("a", "1.0", State.LOADING, "its worker has died")
        board.move("a", "2.0", State.FAILED, "still broken")
        board.move("a", "1.0", State.READY)

    assert restarts(registry, "1.0") == 2


def test_a_version_that_is_unloaded_and_loaded_was_not_restarted():
    board, registry = watched()
    for state in (State.READY, State.LEAVING, State.UNLOADED, State.LOADING, State.READY):
        board.move("a", "1.0", state)

    assert restarts(registry, "1.0") == 0


def test_each_version_is_shown_with_its_state_and_the_default():
    board, registry = watched()
    board.move("a", "2.0", State.FAILED, "broken")

    def shown(version: str, state: str, default: str) -> float | None:
        labels = {"model": "a", "version": version, "state": state, "default": default}
        return registry.get_sample_value("ddpm_gateway_version", labels)

    assert (shown("1.0", "loading", "yes"), shown("2.0", "failed", "no")) == (1, 1)
    board.move("a", "1.0", State.READY)
    board.answer("a", "2.0")
    assert (shown("1.0", "ready", "no"), shown("1.0", "loading", "yes")) == (1, None)


def test_a_model_is_shown_before_its_first_request_for_a_figure_that_appears_as_1_has_not_risen():
    _, registry = watched()

    for outcome in ("done", "cancelled", "busy", "generation_failed", "out_of_memory", "unavailable"):
        labels = {"model": "a", "outcome": outcome}
        assert registry.get_sample_value("ddpm_gateway_requests_total", labels) == 0
    for name in ("images_total", "request_seconds_count", "queue_wait_seconds_count", "first_preview_seconds_count"):
        assert registry.get_sample_value(f"ddpm_gateway_{name}", {"model": "a"}) == 0
