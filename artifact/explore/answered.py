"""The page's answer: GPUs and cost of each system, and what is violated when all have as many GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from artifact.config import ConfigError
from artifact.planning.facts import label
from artifact.planning.question import HOURS_A_MONTH, NIYAMA, Question, Served
from artifact.planning.sizing import Sizing
from artifact.results.metrics import THRESHOLD
from artifact.runs.fluid import fluid_bound_qps
from figures import style

#: Times the load at which violations are shown.
TIMES = (0.6, 0.8, 1.0, 1.2, 1.4)


@dataclass(frozen=True)
class Row:
    """One system. gpus: None where no number holds, and reason says why.

    violated: by class, at the load, on the smallest Niyama's GPUs; curve: of all requests, at TIMES the load there.
    """

    system: str
    gpus: int | None
    usd_a_month: float | None
    violated: dict[str, float]
    curve: tuple[float, ...]
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """All systems, and on how many GPUs violations were compared, beyond whose bound a short run says nothing."""

    question: Question
    rows: tuple[Row, ...]
    compared_gpus: int
    bound_qps: float  # of those GPUs: beyond it work piles up, which in a short run batch classes hide

    def sentence(self) -> str:
        """The answer in a line."""
        held = [row for row in self.rows if row.gpus is not None]
        if not held:
            return "No number of GPUs holds this load: " + "; ".join(dict.fromkeys(row.reason for row in self.rows))
        own = [row for row in held if row.system in NIYAMA] or held
        best = min(own, key=lambda row: row.gpus or 0)
        cost = "" if best.usd_a_month is None else f", USD {best.usd_a_month:,.0f} a month"
        others = [f"{label(row.system)}: {row.gpus or 'none'}" for row in self.rows if row.system != best.system]
        plural = "" if best.gpus == 1 else "s"
        text = f"{label(best.system)} holds {self.question.mean_qps:g} requests/s on {best.gpus} GPU{plural}{cost}"
        return f"{text} ({'; '.join(others)})." if others else f"{text}."


def answer(question: Question) -> Answer:
    """Plan every system, then run each on as many GPUs as the smallest Niyama has. ConfigError as from the planner."""
    per_replica, price = question.card.gpus, question.price(question.card)
    found: dict[str, tuple[tuple[int, ...] | None, str]] = {}
    sizings = {name: Sizing(question) for name in question.systems}
    for name, sizing in sizings.items():
        try:
            found[name] = sizing.size(name).sizes, ""
        except ConfigError as error:
            found[name] = None, str(error)
    sizes = {name: own for name, (own, _) in found.items() if own is not None}
    own = [sum(s) for name, s in sizes.items() if name in NIYAMA] or [sum(s) for s in sizes.values()] or [1]
    rows = []
    for name, (fleet, reason) in found.items():
        same = _same_gpus(min(own), fleet, len(sizings[name].pools(name)))
        runs = [sizings[name].served(name, same, 0, times) for times in TIMES]
        gpus = None if fleet is None else sum(fleet) * per_replica
        usd = None if gpus is None or price is None else gpus * price.usd_per_gpu_hour * HOURS_A_MONTH
        at_load = runs[TIMES.index(1.0)].rates(question.with_tbt)
        by_class = {qos: float(rate) for qos, rate in zip(question.names, at_load, strict=True) if not np.isnan(rate)}
        rows.append(Row(name, gpus, usd, by_class, tuple(_violated(run, question.with_tbt) for run in runs), reason))
    lengths = question.trace.prompt_tokens, question.trace.output_tokens
    bound_qps = min(own) * fluid_bound_qps(question.card, *lengths)
    return Answer(question, tuple(rows), min(own) * per_replica, bound_qps)


def _violated(run: Served, with_tbt: bool) -> float:
    """Share of all requests."""
    return float(run.columns["violated" if with_tbt else "missed_first_or_last"].mean())


def _same_gpus(replicas: int, fleet: tuple[int, ...] | None, pools: int) -> tuple[int, ...]:
    """So many replicas shared among the pools as in the planned fleet; each has one."""
    if pools == 1:
        return (replicas,)
    weights = np.array(fleet if fleet is not None else (1,) * pools, float)
    sizes = np.ones(pools, int)
    for _ in range(max(0, replicas - pools)):
        sizes[int(np.argmax(weights / sizes))] += 1
    return tuple(int(n) for n in sizes)


def draw(found: Answer) -> Figure:
    """Violated requests against load, with all systems on as many GPUs."""
    with style.styled():
        figure = style.new_figure(6.4, 3.2)
        axes = figure.subplots()
        loads = [times * found.question.mean_qps for times in TIMES]
        for row in found.rows:
            look, rates = style.look(row.system), [100 * rate for rate in row.curve]
            axes.plot(
                loads, rates, color=look.colour, marker=look.marker, linestyle=look.dashes, label=label(row.system)
            )
        axes.axvline(found.question.mean_qps, color="0.7", linewidth=0.8)
        axes.axhline(100 * THRESHOLD, color="0.7", linewidth=0.8, linestyle=":")
        axes.set(xlabel="requests/s", ylabel="violated, %", ylim=(0, None))
        if found.bound_qps < loads[-1]:
            text = "more work than the GPUs can do\n(a short run shows little of it)"
            axes.axvspan(found.bound_qps, loads[-1], color="0.92", zorder=0)
            axes.text(
                (found.bound_qps + loads[-1]) / 2,
                0.97,
                text,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="top",
            )
        plural = "" if found.compared_gpus == 1 else "s"
        axes.set_title(f"All systems on {found.compared_gpus} GPU{plural}")
        axes.legend()
    return figure
