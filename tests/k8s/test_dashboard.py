"""The dashboard as Grafana lays it out; that each query finds figures is tested with a real Prometheus."""

from __future__ import annotations

import json

from tests.k8s.pod import one, render

BOARD = json.loads(one(render("overlays/monitoring"), "ConfigMap", "ddpm-dashboard")["data"]["dashboard.json"])
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def test_panels_lie_beside_each_other():
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_each_panel_says_what_it_shows_and_of_which_service():
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    assert variables == {"datasource", "namespace"}
    for panel in PANELS:
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all('namespace="$namespace"' in target["expr"] for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_grafanas_sidecar_finds_it():
    labels = one(render("overlays/monitoring"), "ConfigMap", "ddpm-dashboard")["metadata"]["labels"]
    assert labels == {"grafana_dashboard": "1"}
