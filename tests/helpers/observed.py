"""What operators look at: the dashboard, the alert rules, and every sample that a scrape of a server can show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from niyama.vllm.config import EngineConfig
from niyama.vllm.metrics import SchedulerMetrics
from niyama.vllm.qos import serve

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "niyama.rules.yaml").read_text())["groups"]
DASHBOARD: dict[str, Any] = json.loads(files("niyama.vllm").joinpath("grafana-dashboard.json").read_text())
CLASSES = ("Q1", "Q2", "Q3")
ABOUT = {"version": "1", "vllm_version": "2", "policy": "niyama", "latency_card": "a card"}


def rules(kind: str) -> dict[str, str]:
    """Expressions by name; kind: `record` or `alert`."""
    return {rule[kind]: rule["expr"] for group in RULES for rule in group["rules"] if kind in rule}


def panel_expressions() -> dict[str, str]:
    """Of each target of each panel, by the panel's title and the target's letter."""
    panels = DASHBOARD["panels"]
    return {f"{panel['title']} {t['refId']}": t["expr"] for panel in panels for t in panel.get("targets", ())}


def variable_expressions() -> dict[str, str]:
    """Of the dashboard's own variables, by name."""
    return {
        f"${v['name']}": v["query"]["query"] for v in DASHBOARD["templating"]["list"] if isinstance(v["query"], dict)
    }


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each metric that is asked for with matchers, and those label values that must be as they stand there."""
    for name, matchers in re.findall(r"([A-Za-z_:][\w:]*)\{([^}]*)\}", expression):
        yield name, dict(re.findall(r'(\w+)="([^"$]*)"', matchers))


class BusyServer(Collector):
    """What a server shows whose numbers all grow from scrape to scrape."""

    def __init__(self, folder: Path) -> None:
        self.metrics, self._folder = SchedulerMetrics(CLASSES, {}, folder=folder), folder
        self.metrics.describe(EngineConfig().classes, **ABOUT)
        self.metrics.configured(None, EngineConfig())
        self.metrics.fallback()
        self.metrics.log_ended()
        self.registry = CollectorRegistry()
        self.faults = Counter("niyama_http_qos_faults", "", ("field", "action"), registry=self.registry)
        self.faults.labels("niyama_class", "refused")
        Counter("niyama_http_config_reloads", "", ("result",), registry=self.registry).labels("applied")
        Gauge("niyama_http_config_hash", "", registry=self.registry)
        self.registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing: it would count as a scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Serve some requests, then show what they come to."""
        self.serve()
        yield from self._engines()

    def _engines(self) -> Iterator[Metric]:
        yield from MultiProcessCollector(None, str(self._folder)).collect()

    def serve(self) -> None:
        """Of each class one request that meets its SLO, one that misses it and one that is given up; two steps."""
        metrics = self.metrics
        for late_s in (-1.0, 1.0):
            for name in ("Q2", "Q3"):
                metrics.finished(name, ttft_s=1.0, ttlt_s=600.0 + late_s, relegated=late_s > 0, ttlt_slo_s=600.0)
            metrics.finished(
                "Q1",
                ttft_s=6.0 + late_s,
                ttlt_s=60.0,
                relegated=late_s > 0,
                ttft_slo_s=6.0,
                worst_token_lateness_s=late_s,
            )
            metrics.step(predicted_s=0.05, measured_s=0.05 + 0.03 * late_s, prefill_tokens=900, decodes=20)
        for name in CLASSES:
            metrics.aborted(name, {})
            metrics.relegated(name)
            metrics.unrelegated(name)
            metrics.preempted(name)
            metrics.queue(name, waiting=1, running=1)
        for asked in ({"niyama_class": "Q9"}, {"niyama_class": "Q1", "niyama_tbt_ms": 1}):
            metrics.arrived(serve(EngineConfig(), asked))
        metrics.correction(1.1)
        self.faults.labels("niyama_class", "refused").inc()
