"""Metrics: what is counted, and what a scrape of another process sees."""

import inspect
import multiprocessing
import os
from dataclasses import replace

import pytest

from tests.helpers.waiting import HANG_S

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from niyama.vllm import metric_files
from niyama.vllm import metrics as metrics_module
from niyama.vllm.config import EngineConfig
from niyama.vllm.metrics import FAULTS, SchedulerMetrics
from niyama.vllm.qos import serve
from niyama.vllm.served_class import ServedClass
from tests.helpers.observed import ABOUT, CLASSES

TIGHTER = {"niyama_class": "Q1", "niyama_ttft_ms": 500, "niyama_tbt_ms": 1}


@pytest.fixture
def metrics(tmp_path):
    return SchedulerMetrics(CLASSES, {}, folder=tmp_path)


def scraped(folder):
    """Sample -> value, as another process would read it."""
    samples = [sample for metric in MultiProcessCollector(None, str(folder)).collect() for sample in metric.samples]
    return {(s.name, *sorted(s.labels.items())): s.value for s in samples}


def slo(values, name, kind, outcome):
    return values["niyama_slo_total", ("class", name), ("outcome", outcome), ("slo", kind)]


def test_an_interactive_request_counts_for_its_two_slos(metrics, tmp_path):
    metrics.finished("Q1", ttft_s=5.9, ttlt_s=9.0, relegated=False, ttft_slo_s=6.0, worst_token_lateness_s=0.01)
    metrics.finished("Q1", ttft_s=6.0, ttlt_s=9.0, relegated=True, ttft_slo_s=6.0, worst_token_lateness_s=0.0)
    metrics.finished("Q1", ttft_s=6.1, ttlt_s=9.0, relegated=True, ttft_slo_s=6.0)
    values = scraped(tmp_path)
    assert (slo(values, "Q1", "ttft", "attained"), slo(values, "Q1", "ttft", "missed")) == (2, 1)
    assert (slo(values, "Q1", "tbt", "attained"), slo(values, "Q1", "tbt", "missed")) == (1, 1)
    assert (slo(values, "Q1", "ttlt", "attained"), slo(values, "Q1", "ttlt", "missed")) == (0, 0)
    assert values["niyama_finished_requests_total", ("class", "Q1")] == 3
    assert values["niyama_finished_relegated_requests_total", ("class", "Q1")] == 2
    assert values["niyama_ttft_seconds_sum", ("class", "Q1")] == pytest.approx(18.0)


def test_a_batch_request_counts_for_its_one(metrics, tmp_path):
    metrics.finished("Q2", ttft_s=500.0, ttlt_s=601.0, relegated=False, ttlt_slo_s=600.0)
    values = scraped(tmp_path)
    assert slo(values, "Q2", "ttlt", "missed") == 1
    assert sum(value for (name, *_), value in values.items() if name == "niyama_slo_total") == 1


def test_an_unfinished_request_counts_for_what_is_decided(metrics, tmp_path):
    metrics.aborted("Q1", {"ttft": True, "tbt": False})
    values = scraped(tmp_path)
    assert (slo(values, "Q1", "ttft", "attained"), slo(values, "Q1", "tbt", "missed")) == (1, 1)
    assert sum(value for (name, *_), value in values.items() if name == "niyama_slo_total") == 2
    assert values["niyama_aborted_requests_total", ("class", "Q1")] == 1
    assert values["niyama_finished_requests_total", ("class", "Q1")] == 0


def test_promises_and_what_serves_are_metrics_too(metrics, tmp_path):
    classes = EngineConfig().classes
    metrics.describe(classes, **ABOUT)
    values = scraped(tmp_path)
    assert values["niyama_info", *sorted(ABOUT.items())] == 1
    slos = {key: value for key, value in values.items() if key[0] == "niyama_slo_seconds"}
    assert slos == {
        ("niyama_slo_seconds", ("class", "Q1"), ("slo", "ttft")): 6.0,
        ("niyama_slo_seconds", ("class", "Q1"), ("slo", "tbt")): 0.05,
        ("niyama_slo_seconds", ("class", "Q2"), ("slo", "ttlt")): 600.0,
        ("niyama_slo_seconds", ("class", "Q3"), ("slo", "ttlt")): 1800.0,
    }
    metrics.promise([ServedClass(name="Q2", ttlt_s=300.0), ServedClass(name="new", ttlt_s=1.0)])
    changed = {key for key, value in scraped(tmp_path).items() if values.get(key) != value}
    assert changed == {("niyama_slo_seconds", ("class", "Q2"), ("slo", "ttlt"))}


def test_what_is_used_of_prometheus_client_beyond_its_documentation():
    """By name: a version without them would stop the engine core, or keep its metrics from /metrics. 0.18 has them."""
    assert prometheus_client.metrics.values is prometheus_client.values
    assert "values.ValueClass(" in inspect.getsource(prometheus_client.metrics)
    wanted = {
        mmap_key: ("metric_name", "name", "labelnames", "labelvalues", "help_text"),
        MmapedDict: ("filename", "read_mode"),
        MmapedDict.read_value: ("self", "key"),
        MmapedDict.write_value: ("self", "key", "value", "timestamp"),
        MultiProcessCollector: ("registry", "path"),
    }
    assert {function: tuple(inspect.signature(function).parameters) for function in wanted} == wanted


def test_a_step_counts_its_times_its_chunk_and_its_decodes(metrics, tmp_path):
    metrics.step(predicted_s=0.05, measured_s=0.06, prefill_tokens=900, decodes=20)
    metrics.step(predicted_s=0.0, measured_s=0.01, prefill_tokens=0, decodes=4)
    values = scraped(tmp_path)
    assert values["niyama_step_predicted_seconds_count",] == 1
    assert values["niyama_step_measured_seconds_sum",] == pytest.approx(0.07)
    assert values["niyama_step_measured_over_predicted_sum",] == pytest.approx(1.2)
    assert values["niyama_chunk_tokens_bucket", ("le", "0.0")] == 1
    assert values["niyama_chunk_tokens_bucket", ("le", "1024.0")] == 2
    assert values["niyama_decode_tokens_total",] == 24


def test_the_rest_is_counted_by_class_and_field(metrics, tmp_path):
    metrics.relegated("Q2")
    metrics.unrelegated("Q2")
    metrics.preempted("Q3")
    metrics.aborted("Q3", {})
    metrics.queue("Q1", waiting=7, running=2)
    metrics.queue("Q1", waiting=5, running=2)
    for asked in ({"niyama_class": "Q9"}, {"niyama_typo": 1}, TIGHTER, {"niyama_class": "Q1", "niyama_ttft_ms": 6000}):
        metrics.arrived(serve(EngineConfig(), asked))
    metrics.log_ended()
    metrics.correction(1.25)
    values = scraped(tmp_path)
    for name in ("relegations", "unrelegations"):
        assert values[f"niyama_{name}_total", ("class", "Q2")] == 1
    for name in ("preemptions", "aborted_requests"):
        assert values[f"niyama_{name}_total", ("class", "Q3")] == 1
    assert values["niyama_waiting_requests", ("class", "Q1")] == 5
    assert values["niyama_running_requests", ("class", "Q1")] == 2
    assert values["niyama_qos_faults_total", ("field", "niyama_class")] == 1
    assert values["niyama_qos_faults_total", ("field", "unknown")] == 1
    assert [values["niyama_clamped_requests_total", ("class", name)] for name in CLASSES] == [1, 0, 0]
    assert values["niyama_decision_log_ends_total",] == 1
    assert values["niyama_predictor_correction",] == 1.25


def test_the_number_of_series_is_known_at_the_start(metrics, tmp_path):
    before = set(scraped(tmp_path))
    for name in CLASSES:
        metrics.finished(name, ttft_s=1, ttlt_s=1, relegated=True, ttft_slo_s=1, worst_token_lateness_s=1, ttlt_slo_s=1)
        metrics.queue(name, waiting=1, running=1)
    for field in (*FAULTS, "x", "y"):
        metrics.arrived(replace(serve(EngineConfig(), TIGHTER), fault_field=field))
    metrics.step(predicted_s=1.0, measured_s=1e9, prefill_tokens=10**9, decodes=1)
    assert set(scraped(tmp_path)) == before


def test_after_a_fallback_the_gauges_show_an_idle_engine(metrics, tmp_path):
    """Nobody sets them any more: what they showed last would stand until the restart."""
    metrics.queue("Q1", waiting=37, running=4)
    metrics.correction(1.25)
    metrics.fallback()
    values = scraped(tmp_path)
    assert values["niyama_waiting_requests", ("class", "Q1")] == 0
    assert values["niyama_running_requests", ("class", "Q1")] == 0
    assert values["niyama_predictor_correction",] == 1.0


def test_a_scheduler_made_anew_goes_on_counting(metrics, tmp_path):
    metrics.fallback()
    again = SchedulerMetrics(CLASSES, {}, folder=tmp_path)
    again.fallback()
    assert scraped(tmp_path)["niyama_fallbacks_total",] == 2


def test_without_a_folder_the_numbers_stay_in_the_process(tmp_path, monkeypatch):
    said = []  # not caplog: other tests in this process may have set up logging
    monkeypatch.setattr(metrics_module.logger, "warning", lambda line, *values: said.append(line % values))
    metrics = SchedulerMetrics(CLASSES, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")})
    metrics.fallback()
    assert metrics.registry.get_sample_value("niyama_fallbacks_total") == 1
    assert [line for line in said if "off /metrics" in line]


def test_prometheus_own_multiprocess_directory_is_used_where_vllm_has_one(tmp_path):
    SchedulerMetrics(CLASSES, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}).fallback()
    assert scraped(tmp_path)["niyama_fallbacks_total",] == 1
    registry = CollectorRegistry()
    metric_files.show_engine_metrics({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, registry)
    assert generate_latest(registry) == b""  # vLLM shows them itself; twice would be wrong


def test_a_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_files.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = metric_files.engine_folder({})
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="private directory"):
        metric_files.engine_folder({})
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(OSError):
        metric_files.engine_folder({})


def count_in_a_child(ready, done):
    """What an engine core does."""
    SchedulerMetrics(CLASSES, {}).fallback()
    ready.set()
    done.wait(HANG_S)


def test_the_parents_scrape_shows_what_an_engine_core_counts_and_nothing_stays_behind(tmp_path, monkeypatch):
    """As vLLM starts it: the engine core is a spawned child of the API server."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # an engine of another test in this process has its own metric files
    monkeypatch.setattr(metric_files.tempfile, "tempdir", None)
    registry = CollectorRegistry()
    metric_files.show_engine_metrics({}, registry)
    metric_files.show_engine_metrics({}, registry)
    assert generate_latest(registry) == b""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=count_in_a_child, args=(ready, done))
    child.start()
    try:
        assert ready.wait(HANG_S)
        assert b"\nniyama_fallbacks_total 1.0\n" in generate_latest(registry)
        folder = metric_files._private_folder(os.getpid())
        assert folder.is_dir()
    finally:
        done.set()
        child.join(HANG_S)
    assert not folder.exists()
    assert generate_latest(registry) == b""
