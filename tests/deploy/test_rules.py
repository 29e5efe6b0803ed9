"""The alert rules: what fires when, by Prometheus's own unit tests."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.observed import rules

TESTS = Path(__file__).with_name("niyama.rules.test.yaml")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH (Debian: prometheus)")
def test_the_rules_fire_as_they_should():
    done = subprocess.run(["promtool", "test", "rules", TESTS.name], cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_firing():
    tested = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test.get("alert_rule_test", ())]
    assert {case["alertname"] for case in tested if case["exp_alerts"]} == rules("alert").keys()
