"""What arrives when: the trace's load over time, scaled to the load that is planned for, and what of it is simulated.

The trace is cut into equal bins, of an hour where it is long enough. In a bin requests arrive as a Poisson process
whose rate follows the trace minute by minute, with the lengths of that bin's own rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from artifact.experiments.fleets import silo_share
from artifact.planning.question import Question
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.run import to_requests
from artifact.runs.spec import ClassSpec
from niyama.sim import Requests
from traces import build

HOUR_S = 3600.0
FEW_BINS = 12  # of a trace shorter than as many hours
STEP_S = 60.0  # at least: the rate is the trace's own in each such step
CHUNK_STEP = 32  # tokens between the chunks that a bin's bound is the best of
LEAST_ROWS = 20  # of the trace in a step, on average: fewer say little about the rate


@dataclass(frozen=True)
class Window:
    """The part of the time that is simulated, in seconds of the trace, and how many requests it has."""

    start_s: float
    end_s: float
    requests: float
    whole: bool


class Demand:
    """The load over time of a question. `bins` has a row for each: start in s, rate in requests/s, without headroom."""

    def __init__(self, question: Question) -> None:
        self.question = question
        times = question.trace.arrival_s
        if not question.follows_trace or times is None:
            raise ValueError("a load that does not follow the trace has no bins")
        self.times = times - times[0]
        self.span_s = float(self.times[-1])
        self.bins = max(FEW_BINS, round(self.span_s / HOUR_S))
        self.bin_s = self.span_s / self.bins
        self.rows_of_bin = np.searchsorted(self.bins_of(self.times), np.arange(self.bins + 1))
        self.scale = question.mean_qps * self.span_s / len(self.times)
        self.qps = np.diff(self.rows_of_bin) * self.scale / self.bin_s

    @cached_property
    def steps(self) -> tuple[float, np.ndarray]:
        """Length of a step in s, and the rate in each, from the trace's start to its end."""
        busiest = int(np.diff(self.rows_of_bin).max())
        least_s = max(STEP_S, LEAST_ROWS * self.bin_s / busiest)
        per_bin = max(1, int(self.bin_s / least_s))
        counts, _ = np.histogram(self.times, self.bins * per_bin, (0.0, self.span_s))
        return self.bin_s / per_bin, counts * self.scale / (self.bin_s / per_bin)

    @cached_property
    def work(self) -> np.ndarray:
        """float64[bins]: replicas' worth of work in each: its rate over the fluid bound of its own requests."""
        return np.array([self.qps[b] / self.bound_qps(b) if self.qps[b] else 0.0 for b in range(self.bins)])

    def bound_qps(self, b: int) -> float:
        """The fluid bound of a replica with requests of a bin."""
        rows, trace = slice(*self.rows_of_bin[b : b + 2]), self.question.trace
        lengths = trace.prompt_tokens[rows], trace.output_tokens[rows]
        return fluid_bound_qps(self.question.card, *lengths, chunk_step=CHUNK_STEP)

    @cached_property
    def peak(self) -> int:
        """The bin with most work."""
        return int(np.argmax(self.work))

    @cached_property
    def window(self) -> Window:
        """The busiest bin, and bins next to it while all have at most the requests of a run; or its busiest part."""
        most, first, last = self.question.most_requests, self.peak, self.peak + 1
        per_bin = self.qps * self.bin_s
        if per_bin[first] > most:
            return self._part_of(first, most)
        while last - first < self.bins:
            sides = {b: per_bin[b] for b in (first - 1, last) if 0 <= b < self.bins}
            grown = max(sides, key=lambda b: sides[b])
            if per_bin[first:last].sum() + sides[grown] > most:
                break
            first, last = min(first, grown), max(last, grown + 1)
        own = float(per_bin[first:last].sum())
        return Window(first * self.bin_s, last * self.bin_s, own, last - first == self.bins)

    def _part_of(self, b: int, most: int) -> Window:
        """The busiest steps in a row of a bin that has more than `most` requests."""
        step_s, rate = self.steps
        per_bin = round(self.bin_s / step_s)
        counts = rate[b * per_bin : (b + 1) * per_bin] * step_s
        length = max(1, int(per_bin * most / counts.sum()))
        sums = np.convolve(counts, np.ones(length), "valid")
        start = b * per_bin + int(np.argmax(sums))
        return Window(start * step_s, (start + length) * step_s, float(sums.max()), False)

    def window_of(self, b: int, most: int) -> Window:
        """A bin, or its busiest part of at most that many requests."""
        own = float(self.qps[b] * self.bin_s)
        return self._part_of(b, most) if own > most else Window(b * self.bin_s, (b + 1) * self.bin_s, own, False)

    def bins_of(self, arrival_s: np.ndarray) -> np.ndarray:
        """The bin of each time."""
        return np.asarray(np.minimum((arrival_s / self.bin_s).astype(int), self.bins - 1))

    def arrivals(self, window: Window, seed: int, times: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrival in s of the trace, row of the trace and a number in [0, 1) of each request at `times` the load.

        The same seed draws the same gaps at every load.
        """
        step_s, rate = self.steps
        first, last = round(window.start_s / step_s), round(window.end_s / step_s)
        expected = np.concatenate(([0.0], np.cumsum(rate[first:last]) * step_s * times))
        gaps, rows, classes = (np.random.default_rng([seed, axis]) for axis in range(3))
        count = int(expected[-1] + 6 * np.sqrt(expected[-1]) + 20)
        unit = np.cumsum(gaps.standard_exponential(count))
        unit = unit[: max(1, int(np.searchsorted(unit, expected[-1])))]
        arrival_s = np.interp(unit, expected, step_s * np.arange(first, last + 1))
        bins = self.bins_of(arrival_s)
        start, end = self.rows_of_bin[bins], self.rows_of_bin[bins + 1]
        drawn = start + (rows.random(len(unit)) * np.maximum(end - start, 1)).astype(int)
        return arrival_s, np.minimum(drawn, len(self.times) - 1), classes.random(len(unit))


class Workloads:
    """The requests of a question: of the whole, or of one class alone, by seed and load. The last few are kept."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.demand = Demand(question) if question.follows_trace else None
        self._kept: dict[tuple[object, ...], Requests] = {}

    def requests(
        self, seed: int, times: float = 1.0, qos: ClassSpec | None = None, window: Window | None = None
    ) -> Requests:
        """What arrives at `times` the planned load; qos: of that class alone, as a silo's pool sees it."""
        key = seed, times, qos and qos.name, window
        if key not in self._kept:
            while len(self._kept) >= 8:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._steady(seed, times, qos) if self.demand is None else self._of(key, qos)
        return self._kept[key]

    def _steady(self, seed: int, times: float, qos: ClassSpec | None) -> Requests:
        """As `cluster` plans: Poisson arrivals, lengths of all rows in any order."""
        if self.question.class_of_row is not None:
            return self._steady_by_row(seed, times, qos)
        spec = self.question.spec("niyama")
        spec = spec.model_copy(update={"load_qps": spec.load_qps * times, "seed": seed})
        spec = silo_share(spec, qos) if qos else spec
        return to_requests(spec.classes, build(spec.workload_spec(), self.question.trace))

    def _steady_by_row(self, seed: int, times: float, qos: ClassSpec | None) -> Requests:
        """The same where each row has a class of its own: a pool gets its part of what arrives."""
        count, (gaps, drawn) = self.question.most_requests, (np.random.default_rng([seed, axis]) for axis in range(2))
        arrival_s = np.cumsum(gaps.standard_exponential(count)) / (self.question.mean_qps * times)
        rows = drawn.integers(0, len(self.question.trace), count)
        return self._made(arrival_s, rows, self.class_of(rows, rows), qos)

    def _of(self, key: tuple[object, ...], qos: ClassSpec | None) -> Requests:
        """As the trace's load goes up and down."""
        seed, times, _, window = key
        demand = self.demand
        assert demand is not None and isinstance(seed, int) and isinstance(times, float)
        part = window if isinstance(window, Window) else demand.window
        arrival_s, rows, drawn = demand.arrivals(part, seed, times)
        return self._made(arrival_s, rows, self.class_of(rows, drawn), qos)

    def _made(self, arrival_s: np.ndarray, rows: np.ndarray, index: np.ndarray, qos: ClassSpec | None) -> Requests:
        """Requests with the lengths of these rows; qos: those of that class alone."""
        trace, classes = self.question.trace, self.question.classes
        if qos is not None:
            mine = index == self.question.names.index(qos.name)
            mine[-1] |= not mine.any()  # a pool serves at least one request
            arrival_s, rows, index, classes = arrival_s[mine], rows[mine], np.zeros(int(mine.sum()), int), (qos,)
        prompt, output = trace.prompt_tokens[rows], trace.output_tokens[rows]
        own, important = tuple(c.qos() for c in classes), trace.extras.important
        important = np.ones(len(rows), bool) if important is None else important[rows]
        return Requests(own, index.astype("i2"), arrival_s, prompt, output, important)

    def class_of(self, rows: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The class of each request: its row's own, or by a number in [0, 1) and the shares."""
        if self.question.class_of_row is not None:
            return np.asarray(self.question.class_of_row[rows])
        shares = np.array([c.share for c in self.question.classes])
        return np.searchsorted(np.cumsum(shares)[:-1] / shares.sum(), drawn, "right")
