"""The dashboard and the rules ask for metrics, labels and values that a server exports, and leave none out."""

import math
import re

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")

from niyama.vllm.clock import FITS_WITHIN
from niyama.vllm.serving.middleware import _faults, _hash, _reloads
from tests.helpers.observed import (
    DASHBOARD,
    BusyServer,
    panel_expressions,
    rules,
    selectors,
    variable_expressions,
)

# PromQL's own words
PROMQL = {"sum", "max", "by", "on", "and", "or", "rate", "increase", "histogram_quantile", "label_values"}
PROMQL |= {"scalar", "vector", "absent", "count", "count_values"}
LABELS = {"class", "slo", "outcome", "le", "field", "action", "instance", "namespace", "job", "result"}
LABELS |= {"policy", "latency_card", "version", "vllm_version"}
RECORDED, ALERTS = rules("record"), rules("alert")
ASKED = {**panel_expressions(), **variable_expressions(), **RECORDED, **ALERTS}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Every sample that a scrape can show: name and labels."""
    server = BusyServer(tmp_path_factory.mktemp("metrics"))
    return [(s.name, s.labels) for metric in server.registry.collect() for s in metric.samples]


@pytest.mark.parametrize("name", ASKED)
def test_every_expression_asks_for_metrics_and_labels_that_exist(samples, name):
    expression = ASKED[name]
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\$\w+', " ", expression)
    words = set(re.findall(r"[A-Za-z_:][\w:]*", bare)) - PROMQL - LABELS
    assert words or name == "niyama:slo_budget:ratio"
    assert words <= {name for name, _ in samples} | RECORDED.keys()
    assert expression.count("(") == expression.count(")")
    for metric, wanted in selectors(expression):
        assert metric in RECORDED or any(n == metric and wanted.items() <= labels.items() for n, labels in samples)


def test_every_metric_is_on_the_dashboard(samples):
    text = " ".join([*panel_expressions().values(), *RECORDED.values()])
    for name in {name for name, _ in samples}:
        assert re.sub(r"_(bucket|sum|count|created)$", "", name) in text, name


def test_the_middlewares_counter_has_the_name_that_the_dashboard_asks_for():
    names = [metric.name for one in (_faults(), _reloads(), _hash()) for metric in one.collect()]
    assert names == ["niyama_http_qos_faults", "niyama_http_config_reloads", "niyama_http_config_hash"]


def test_the_misfit_alert_and_the_log_line_have_one_threshold():
    bounds = sorted(float(number) for number in re.findall(r"[<>] ([\d.]+)", ALERTS["NiyamaPredictorMisfit"]))
    assert bounds == pytest.approx([math.exp(-FITS_WITHIN), math.exp(FITS_WITHIN)])


def test_panels_have_ids_places_and_say_what_they_show():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        rows = range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in rows}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
