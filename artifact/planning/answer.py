"""The planner's answer: every system planned, the cheapest Niyama, and what would change it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from artifact.config import ConfigError
from artifact.planning.demand import Demand
from artifact.planning.feasibility import impossible, refuse_impossible
from artifact.planning.outcome import Outcome, attained, outcome
from artifact.planning.question import NIYAMA, Question
from artifact.planning.sizing import Sizing
from artifact.results.code_hash import code_of, digest
from artifact.runs.spec import ClassSpec
from niyama import load_card
from niyama.latency import ModelCard, model_names

NOISE = 0.1  # of the what-if line: standard deviation of the log of step times
QUICK_REQUESTS = 6_000


@dataclass(frozen=True, eq=False)
class WhatIf:
    """What changes, the GPUs that the best Niyama then takes (None: no number does), and what is to be said of it.

    question: the one that was planned, if one was.
    """

    what: str
    gpus: int | None
    note: str = ""
    question: Question | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What the command prints."""

    question: Question
    outcomes: tuple[Outcome, ...]
    what_ifs: tuple[WhatIf, ...]

    @property
    def best(self) -> Outcome | None:
        """Of Niyama's policies that hold the load the one with fewest GPUs."""
        own = [found for found in self.outcomes if found.system in NIYAMA and found.gpus is not None]
        return min(own, key=lambda found: found.gpus or 0) if own else None

    @cached_property
    def demand(self) -> Demand | None:
        """The load over time; None where it is constant."""
        return Demand(self.question) if self.question.follows_trace else None

    @cached_property
    def code(self) -> str:
        """One hash of all code and data that it was made by."""
        trace = self.question.trace
        return digest(code_of("plan", self.question.latency, *([] if trace.source == "file" else [trace.name])))


def plan(
    question: Question,
    jobs: int = 1,
    said: Callable[[str, float], None] = lambda text, done: None,
    warned: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Plan all systems of the question, `jobs` at a time. said: told what was done, and which share of all.

    warned: told at once which class which system cannot serve, and why.

    ConfigError at once when a class cannot be met by any number of GPUs.
    """
    refuse_impossible(Sizing(question))
    for system in question.systems:
        for reason in impossible(Sizing(question), system):
            warned(f"{system}: {reason}")
    outcomes: list[Outcome] = []
    total = len(question.systems) + 4
    for found in _each(jobs, outcome, [(question, system) for system in question.systems]):
        outcomes.append(found)
        said(f"planned {found.system}", len(outcomes) / total)
    first = Plan(question, tuple(outcomes), ())
    lines: list[WhatIf] = []
    if first.best is not None:
        for found in _each(jobs, what_if, [(*asked, first.best) for asked in changes(question)]):
            lines.append(found)
            said(f"planned: {found.what}", (len(outcomes) + len(lines)) / total)
        lines.append(one_less(question, first.best))
    said("planned", 1.0)
    return Plan(question, first.outcomes, tuple(lines))


def quick(question: Question, system: str = "niyama") -> Outcome:
    """One system by one seed and short runs: in about a second, for a page that answers while one moves a slider."""
    return outcome(question.but(seeds=1, most_requests=min(question.most_requests, QUICK_REQUESTS)), system)


def _each(jobs: int, call: Callable[..., object], arguments: list[tuple[object, ...]]) -> Iterator[object]:
    """The call's answers in order; in processes of their own where several are to run at once."""
    if jobs == 1 or len(arguments) == 1:
        yield from (call(*own) for own in arguments)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from (waited.result() for waited in [pool.submit(call, *own) for own in arguments])


def changes(question: Question) -> list[tuple[str, Question, bool]]:
    """The what-if questions that are planned anew, and whether each asks for less: then it takes no more GPUs."""
    tightest = min(question.classes, key=lambda c: (not c.qos().interactive, c.qos().deadline_slo_s))
    field = "ttft_s" if tightest.qos().interactive else "ttlt_s"
    slo = 2 * getattr(tightest, field)
    what = f"{field.removesuffix('_s').upper()} of {tightest.name} {slo:g} s instead of {slo / 2:g} s"
    found = [
        (what, question.but(classes=_with(question, tightest, field, slo)), True),
        ("step times with 10 % noise", question.but(noise=NOISE), False),
    ]
    if (other := question.other_latency or other_card(question.card)) is not None:
        card = load_card(other)
        found.append((f"on {card.gpu} ({card.name})", question.but(latency=other, gpu_hour_usd=None), False))
    return found


def _with(question: Question, tightest: ClassSpec, field: str, slo: float) -> tuple[ClassSpec, ...]:
    return tuple(c.model_copy(update={field: slo}) if c is tightest else c for c in question.classes)


def other_card(card: ModelCard) -> str | None:
    """A card of the same model on another GPU, of the same kind if there is one."""
    model, kind = card.model.split()[0], card.name.rpartition("-")[2]
    other = [c for c in map(load_card, model_names()) if c.model.split()[0] == model and c.gpu != card.gpu]
    order = {kind: 0, "engine": 1}
    return min(other, key=lambda c: (order.get(c.name.rpartition("-")[2], 2), c.name)).name if other else None


def what_if(what: str, question: Question, less: bool, best: Outcome) -> WhatIf:
    """The best Niyama planned for a question that differs; less: a fleet that holds more holds it too."""
    try:
        sizing = Sizing(question)
        refuse_impossible(sizing)
        found = sum(sizing.size(best.system).sizes) * question.card.gpus
    except ConfigError as error:
        return WhatIf(what, None, str(error))
    found = min(found, best.gpus or found) if less else found
    more = found - (best.gpus or 0)
    return WhatIf(what, found, "as many" if more == 0 else f"{abs(more)} {'more' if more > 0 else 'fewer'}", question)


def one_less(question: Question, best: Outcome) -> WhatIf:
    """How the best Niyama fares at the load itself with one replica less."""
    assert best.sized is not None
    what, fewer = "one replica less", tuple(n - 1 for n in best.sized.sizes)
    if min(fewer) < 1:
        return WhatIf(what, 0, "there is only one")
    if (behind := Sizing(question).falls_behind(best.system, fewer, 1.0)) is not None:
        return WhatIf(what, sum(fewer) * best.gpus_per_replica, f"{behind}: more than these can do", question)
    shares = attained(Sizing(question), best.system, fewer)
    worst = min(shares, key=lambda name: shares[name])
    note = f"{worst} then meets its SLOs in {100 * shares[worst]:.4g} % of its requests"
    note += ", all others more often" if len(shares) > 1 else ""
    return WhatIf(what, sum(fewer) * best.gpus_per_replica, note, question)
