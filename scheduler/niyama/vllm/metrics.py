"""Prometheus metrics of the scheduler, per QoS class. `metric_files` says how they get from here to `/metrics`.

One `SchedulerMetrics` a scheduler; a second one in the same process goes on counting where the first stands. Every
label value is known at the start (class names, fields), so that the number of series is bounded and none is made later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from niyama.vllm.config import EngineConfig
from niyama.vllm.metric_files import engine_folder, kept_in, remove_at_exit
from niyama.vllm.qos import FIELDS, UNKNOWN, Served
from niyama.vllm.reloading import APPLIED, RESULTS
from niyama.vllm.served_class import ServedClass

logger = logging.getLogger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only

SLOS = ("ttft", "tbt", "ttlt")
OUTCOMES = ("attained", "missed")
FAULTS = (*FIELDS, UNKNOWN)
#: Seconds of an engine step: 1 ms to 4 s.
STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
#: Measured over predicted time of a step: 1 is a perfect predictor.
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 4.0)
CHUNK_BUCKETS_TOKENS = (0, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
LATENCY_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 4, 6, 10, 20, 60, 120, 300, 600, 1200, 1800, 3600)


class SchedulerMetrics:
    """What the engine loop reports; each call costs microseconds and none raises for a known class.

    environ: as `os.environ`; decides the files' folder. folder: instead of that, for tests. Where no folder can be
    had, the numbers stay in this process, and a warning says so.
    """

    def __init__(self, class_names: Sequence[str], environ: Mapping[str, str], *, folder: Path | None = None) -> None:
        try:
            folder = folder or engine_folder(environ)
            with kept_in(folder):
                self._make(tuple(class_names))
            remove_at_exit(folder)
        except OSError as error:
            logger.warning("Niyama: metrics stay inside the engine core and off /metrics: %s", error)
            folder = None
            self._make(tuple(class_names))
        self._folder = folder

    def _make(self, names: tuple[str, ...]) -> None:
        self.registry = CollectorRegistry()
        self._make_request_metrics(names)
        self._make_step_metrics(names)

    def _make_request_metrics(self, names: tuple[str, ...]) -> None:
        slo = self._counter("niyama_slo", "Ended requests whose SLO is decided, by outcome.", "class", "slo", "outcome")
        self._slo = {(n, s, o): slo.labels(n, s, o) for n in names for s in SLOS for o in OUTCOMES}
        self._finished = self._per_class(names, "niyama_finished_requests", "Finished requests.")
        self._aborted = self._per_class(names, "niyama_aborted_requests", "Requests that ended unfinished.")
        self._served_relegated = self._per_class(
            names, "niyama_finished_relegated_requests", "Finished requests that had been relegated for good."
        )
        self._relegated = self._per_class(names, "niyama_relegations", "Times a request was relegated.")
        self._restored = self._per_class(names, "niyama_unrelegations", "Times a relegated request became ordinary.")
        self._preempted = self._per_class(names, "niyama_preemptions", "Times a request lost its KV.")
        self._ttft = self._histogram_per_class(names, "niyama_ttft_seconds", "Arrival to first token.")
        self._ttlt = self._histogram_per_class(names, "niyama_ttlt_seconds", "Arrival to last token.")
        fault = self._counter("niyama_qos_faults", "Requests whose QoS the engine could not honour.", "field")
        self._fault = {field: fault.labels(field) for field in FAULTS}
        self._clamped = self._per_class(
            names, "niyama_clamped_requests", "Requests that asked for an SLO beyond their class's range."
        )

    def _make_step_metrics(self, names: tuple[str, ...]) -> None:
        self._waiting = self._gauge_per_class(names, "niyama_waiting_requests", "Requests that wait for prefill.")
        self._running = self._gauge_per_class(names, "niyama_running_requests", "Requests that hold KV.")
        self._shown: dict[Gauge, float] = {}
        self._promised: dict[tuple[str, str], Gauge] = {}
        self._predicted = self._histogram(
            "niyama_step_predicted_seconds", "Step times as planned, correction included.", STEP_BUCKETS_S
        )
        self._measured = self._histogram("niyama_step_measured_seconds", "Step times as measured.", STEP_BUCKETS_S)
        self._ratio = self._histogram(
            "niyama_step_measured_over_predicted", "Measured over predicted step time; 1 is perfect.", RATIO_BUCKETS
        )
        self._chunk = self._histogram("niyama_chunk_tokens", "Prefill tokens of a step.", CHUNK_BUCKETS_TOKENS)
        self._decodes = self._counter("niyama_decode_tokens", "Decode tokens that were scheduled.")
        self._fallback = self._counter("niyama_fallbacks", "Internal errors after which vLLM's own order took over.")
        self._log_ends = self._counter("niyama_decision_log_ends", "Decision logs that ended before their engine did.")
        self._correction = Gauge(
            "niyama_predictor_correction",
            "Factor that the predictor's step times are multiplied by; the largest of the engines'.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.correction(1.0)
        reloads = self._counter("niyama_config_reloads", "Changes of the configuration's file, by result.", "result")
        self._reloads = {result: reloads.labels(result) for result in RESULTS}
        self._config_hash = self._largest("niyama_config_hash", "Stands for the configuration that requests get.")

    def describe(self, classes: Sequence[ServedClass], **about: str) -> None:
        """What is promised, and what serves: its policy, latency card and versions. Once, after which `promise`."""
        with kept_in(self._folder) if self._folder is not None else nullcontext():
            slos = self._largest("niyama_slo_seconds", "SLO of a class; a request may have relaxed it.", "class", "slo")
            self._promised = {(c.name, slo): slos.labels(c.name, slo) for c in classes for slo in _promises(c)}
            self._largest("niyama_info", "What schedules here; always 1.", *about).labels(**about).set(1)
        self.promise(classes)

    def promise(self, classes: Iterable[ServedClass]) -> None:
        """The classes' SLOs from now on; not of a class, or of a kind of SLO, that was not there from the start."""
        for served in classes:
            for slo, seconds in _promises(served).items():
                if (gauge := self._promised.get((served.name, slo))) is not None:
                    self._show(gauge, seconds)

    def finished(
        self,
        class_name: str,
        *,
        ttft_s: float,
        ttlt_s: float,
        relegated: bool,
        ttft_slo_s: float | None = None,
        worst_token_lateness_s: float | None = None,
        ttlt_slo_s: float | None = None,
    ) -> None:
        """A request finished. None: an SLO that it did not have. worst_token_lateness_s: above 0 if any token but
        the first came after its deadline (Eq 2); None as well when there was no such token.
        """
        self._finished[class_name].inc()
        self._ttft[class_name].observe(ttft_s)
        self._ttlt[class_name].observe(ttlt_s)
        if relegated:
            self._served_relegated[class_name].inc()
        if ttft_slo_s is not None:
            self._outcome(class_name, "ttft", ttft_s <= ttft_slo_s)
        if worst_token_lateness_s is not None:
            self._outcome(class_name, "tbt", worst_token_lateness_s <= 0)
        if ttlt_slo_s is not None:
            self._outcome(class_name, "ttlt", ttlt_s <= ttlt_slo_s)

    def _outcome(self, class_name: str, slo: str, attained: bool) -> None:
        self._slo[class_name, slo, OUTCOMES[0] if attained else OUTCOMES[1]].inc()

    def aborted(self, class_name: str, decided: Mapping[str, bool]) -> None:
        """A request ended without its last token: the client left, or vLLM gave it up.

        decided: its SLOs (of SLOS) whose outcome is known all the same, and whether they were attained.
        """
        self._aborted[class_name].inc()
        for slo, attained in decided.items():
            self._outcome(class_name, slo, attained)

    def relegated(self, class_name: str) -> None:
        """A request was relegated, because a miss was predicted."""
        self._relegated[class_name].inc()

    def unrelegated(self, class_name: str) -> None:
        """A relegated request became an ordinary one again."""
        self._restored[class_name].inc()

    def preempted(self, class_name: str) -> None:
        """A request lost its KV and will be prefilled again."""
        self._preempted[class_name].inc()

    def step(self, *, predicted_s: float, measured_s: float, prefill_tokens: int, decodes: int) -> None:
        """An engine step ended. predicted_s: as planned, correction included; 0 if it was not planned."""
        if predicted_s > 0:
            self._predicted.observe(predicted_s)
            self._ratio.observe(measured_s / predicted_s)
        self._measured.observe(measured_s)
        self._chunk.observe(prefill_tokens)
        self._decodes.inc(decodes)

    def queue(self, class_name: str, *, waiting: int, running: int) -> None:
        """Requests of a class that wait and that run, now; free of charge while they do not change."""
        self._show(self._waiting[class_name], waiting)
        self._show(self._running[class_name], running)

    def arrived(self, served: Served) -> None:
        """A request arrived, and this is what it is promised."""
        if served.fault_field is not None:
            self._fault.get(served.fault_field, self._fault[UNKNOWN]).inc()
        if served.clamped:
            self._clamped[served.class_name].inc()

    def fallback(self) -> None:
        """An internal error: vLLM's own order took over. From now on nobody tells how many wait here, or how long
        steps take: the gauges show what they do of an idle engine.
        """
        self._fallback.inc()
        for gauge in (*self._waiting.values(), *self._running.values()):
            self._show(gauge, 0)
        self.correction(1.0)

    def configured(self, result: str | None, config: EngineConfig) -> None:
        """A changed file was read, unless result is None; config: what is in force.

        From another thread than all else, and nothing else sets these.
        """
        if result is not None:
            self._reloads[result].inc()
        if result == APPLIED:
            self.promise(config.classes)
        self._config_hash.set(config.number)

    def log_ended(self) -> None:
        """The decision log could not be written, or had reached its limit."""
        self._log_ends.inc()

    def correction(self, factor: float) -> None:
        """The factor by which the predictor's step times are multiplied from now on."""
        self._show(self._correction, factor)

    def _show(self, gauge: Gauge, value: float) -> None:
        if self._shown.get(gauge) != value:
            self._shown[gauge] = value
            gauge.set(value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _per_class(self, names: tuple[str, ...], name: str, text: str) -> dict[str, Counter]:
        counter = self._counter(name, text, "class")
        return {n: counter.labels(n) for n in names}

    def _gauge_per_class(self, names: tuple[str, ...], name: str, text: str) -> dict[str, Gauge]:
        gauge = Gauge(name, text, ("class",), registry=self.registry, multiprocess_mode="livesum")
        return {n: gauge.labels(n) for n in names}

    def _largest(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode="livemax")

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, registry=self.registry, buckets=buckets)

    def _histogram_per_class(self, names: tuple[str, ...], name: str, text: str) -> dict[str, Histogram]:
        histogram = Histogram(name, text, ("class",), registry=self.registry, buckets=LATENCY_BUCKETS_S)
        return {n: histogram.labels(n) for n in names}


def _promises(served: ServedClass) -> dict[str, float]:
    """Seconds by SLO of SLOS, of those that the class has."""
    seconds = {slo: getattr(served, f"{slo}_s") for slo in SLOS}
    return {slo: value for slo, value in seconds.items() if value is not None}
