"""The alerts: each one rises when it should, and has its place in the operations page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.pod import ROOT, one, render, tool

UNIT_TESTS = Path(__file__).with_name("rules_test.yaml")
GROUPS = one(render("overlays/monitoring"), "PrometheusRule")["spec"]["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]


@pytest.fixture
def promtool(tmp_path):
    """Run promtool in a folder with the rules as Prometheus reads them."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    shutil.copy(UNIT_TESTS, tmp_path)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([tool("promtool"), *words], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_prometheus_takes_the_rules(promtool):
    checked = promtool("check", "rules", "--lint-fatal", "rules.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_rises_when_it_should_and_only_then(promtool):
    tested = promtool("test", "rules", UNIT_TESTS.name)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_been_made_to_rise(alert):
    tests = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    assert any(case["alertname"] == alert["alert"] and case["exp_alerts"] for case in tests)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_says_how_bad_it_is_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert alert["alert"] in headings
