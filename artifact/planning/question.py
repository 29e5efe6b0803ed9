"""What is asked of the planner, checked: a trace, its classes, a load, GPUs and their price."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from artifact.config import LEAST_QPS, MOST_QPS, ConfigError
from artifact.latency.gpu_prices import Price, Prices
from artifact.results import metrics
from artifact.runs.spec import LATENCY, PAPER_MIX, ClassSpec, RunSpec
from artifact.runs.systems import SILO, build_system
from artifact.servers.simulated import simulated_system
from artifact.servers.systems import FCFS, PRIORITY
from niyama import load_card
from niyama.latency import ModelCard
from niyama.sim import Requests, Run, System, simulate
from niyama.sim.noise import Noise
from traces import Trace

STOCK = (FCFS, PRIORITY)
NIYAMA = ("niyama", "niyama-steady")
SYSTEMS = (SILO, *STOCK, *NIYAMA)
#: Requests of a run unless --requests says otherwise; a longer trace is planned by its busiest hours.
REQUESTS = 20_000
HOURS_A_MONTH = 730.0


@dataclass(frozen=True, eq=False)
class Question:
    """qps: mean load; None: the trace's own. headroom: the fleet has to hold at that much more.

    steady: a constant load of `qps` with requests in any order; else the load follows the trace's own times. sustained:
    no fleet is smaller than the work, although a run may end before that shows, as the paper's do. most_requests: of a
    run. with_tbt: whether token deadlines count. gpu_hour_usd: of the card's GPU, before that of `prices`.
    other_latency: the card of the what-if line; None: chosen. model: what vLLM is to serve; None: by the card.
    class_of_row: int[rows] of the trace, which of `classes` each is of; None: drawn by the shares.
    """

    trace: Trace
    classes: tuple[ClassSpec, ...] = PAPER_MIX
    latency: str = LATENCY
    qps: float | None = None
    headroom: float = 0.0
    seeds: int = 3
    with_tbt: bool = True
    steady: bool = False
    sustained: bool = True
    most_requests: int = REQUESTS
    noise: float = 0.0
    systems: tuple[str, ...] = SYSTEMS
    gpu_hour_usd: float | None = None
    prices: Prices = field(default_factory=dict)
    cold_start_s: float = 120.0
    other_latency: str | None = None
    model: str | None = None
    class_of_row: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.qps is not None and not LEAST_QPS <= self.qps <= MOST_QPS:
            raise ConfigError(f"qps is {self.qps}; give a load from {LEAST_QPS:g} to {MOST_QPS:g} requests/s")
        if self.qps is None and self.own_qps is None:
            why = "no times" if self.trace.arrival_s is None else "all its requests at one time"
            raise ConfigError(f"trace {self.trace.name} has {why}, so no load of its own; give --qps")
        if idle := [c.name for c in self.classes if not c.share > 0]:
            raise ConfigError(f"class {idle[0]!r} has no requests (share 0); leave it out of the classes")
        total = sum(c.share for c in self.classes)
        if abs(total - 1) > 1e-6:
            raise ConfigError(
                f"classes have shares that sum to {total:g}; make them sum to 1, or give all but one a `when`"
            )
        if none := [c.name for c in self.classes if c.share == 0]:
            raise ConfigError(f"class {none[0]!r} has none of the requests; give it a share, or leave it out")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"classes are {', '.join(self.names)}: a name is there twice; give each class its own")
        if not self.systems:
            raise ConfigError("systems is empty; name at least one")
        if self.other_latency is not None:
            load_card(self.other_latency)
        for name in self.systems:
            system_of(name, self.classes, None, self.card)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def card(self) -> ModelCard:
        return load_card(self.latency)

    @property
    def own_qps(self) -> float | None:
        """The trace's own mean load; None where it has no times."""
        times = self.trace.arrival_s
        span_s = 0.0 if times is None else float(times[-1] - times[0])
        return len(self.trace) / span_s if span_s > 0 else None

    @property
    def mean_qps(self) -> float:
        """The mean load that is planned for, without headroom."""
        found = self.qps if self.qps is not None else self.own_qps
        assert found is not None
        return float(found)

    @property
    def follows_trace(self) -> bool:
        """Whether the load changes with time as the trace's does."""
        return not self.steady and self.own_qps is not None

    def price(self, card: ModelCard) -> Price | None:
        """Of an hour of one of the card's GPUs; None where nobody has said it."""
        if self.gpu_hour_usd is not None and card.gpu == self.card.gpu:
            return Price(self.gpu_hour_usd, "as given")
        return self.prices.get(card.gpu)

    def but(self, **changes: Any) -> Question:
        """The same question with other fields."""
        return replace(self, **changes)

    def spec(self, system: str, classes: tuple[ClassSpec, ...] | None = None) -> RunSpec:
        """What identifies runs of this question: a RunSpec of its mean load."""
        return RunSpec(
            trace=self.trace.name,
            system=system,
            load_qps=self.mean_qps,
            requests=self.most_requests,
            latency=self.latency,
            noise=self.noise,
            classes=classes or self.classes,
        )


def system_of(name: str, classes: tuple[ClassSpec, ...], sizes: tuple[int, ...] | None, card: ModelCard) -> System:
    """The system of that name: one of `simulate`, or a stock vLLM server with its default chunk on the card's GPU."""
    if name in STOCK:
        return simulated_system(name, classes, sizes or (1,), card.hardware)
    return build_system(name, classes, sizes)


@dataclass(frozen=True, eq=False)
class Served:
    """Requests and what became of them."""

    requests: Requests
    run: Run
    columns: dict[str, np.ndarray] = field(repr=False)

    def rates(self, with_tbt: bool, mask: np.ndarray | None = None) -> np.ndarray:
        """float64[classes]: share of violated requests, of those in the mask; nan for a class without any."""
        kept = np.ones(len(self.requests), bool) if mask is None else mask
        index, count = self.requests.class_index[kept], len(self.requests.classes)
        late = self.columns["violated" if with_tbt else "missed_first_or_last"][kept]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.bincount(index, late, count) / np.bincount(index, minlength=count))


def serve(question: Question, system: System, name: str, requests: Requests, seed: int) -> Served:
    """Simulate a fleet on these requests."""
    card, noise = question.card, Noise(question.noise, 0.0, 0.0)
    done = simulate(system, requests, card, card, noise=noise, seed=seed, started_first=name in STOCK)
    return Served(requests, done, metrics.request_columns(requests, done))
