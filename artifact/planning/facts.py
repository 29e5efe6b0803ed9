"""A plan as plain numbers with units in their names: what `--json` prints, and all that the page and the table show."""

from __future__ import annotations

from math import floor
from typing import Any

from artifact.planning.answer import Plan, WhatIf
from artifact.planning.outcome import Outcome, usd_a_month
from artifact.planning.question import HOURS_A_MONTH, SYSTEMS
from artifact.planning.text import gpus_text
from artifact.results.metrics import THRESHOLD
from artifact.runs.run import BACKEND
from figures import style
from niyama.policies import BUILT_IN

DIGITS = 4
LEAST_PER_REPLICA = 50  # requests of a run
LABELS = {"sarathi-silo": "Silos", "vllm-fcfs": "Shared vLLM, FCFS", "vllm-priority": "Shared vLLM, priority"}


def number(value: float) -> float | int:
    """To four significant digits, more only of whole numbers."""
    short = float(f"{value:.{DIGITS}g}") if abs(value) < 10**DIGITS else round(value)
    return number_of(short)


def percent(share: float) -> float | int:
    """Rounded down to three decimals: only what misses nothing is 100."""
    return number_of(floor(round(1e5 * share, 6)) / 1e3)


def number_of(value: float) -> float | int:
    """A whole number without a point."""
    return int(value) if value == int(value) else value


def label(system: str) -> str:
    """How a system is called in a plan."""
    return LABELS.get(system) or style.look(system).label


def facts(plan: Plan) -> dict[str, Any]:
    """Everything."""
    question, card = plan.question, plan.question.card
    return {
        "answer": sentence(plan),
        "best": plan.best and label(plan.best.system),
        "backend": BACKEND,
        "trace": question.trace.name,
        "trace_source": question.trace.source,
        "trace_sha256": question.trace.sha256,
        "trace_rows": len(question.trace),
        "latency": card.name,
        "model": card.model,
        "gpu": card.gpu,
        "card_error": card.error,
        "gpus_per_replica": card.gpus,
        "predictor": question.spec(SYSTEMS[-1]).predictor_label,
        "noise": question.noise,
        "seeds": question.seeds,
        "counted": "TTFT, TBT, TTLT" if question.with_tbt else "TTFT, TTLT",
        "sustained": "yes"
        if question.sustained
        else "no: runs as long as the paper's, in which a backlog may still grow",
        "most_missed_percent": 100 * THRESHOLD,
        "code": plan.code,
        "load": _load(plan),
        "classes": [c.model_dump(exclude_none=True) for c in question.classes],
        "price": _price(plan),
        "systems": [_system(plan, found) for found in plan.outcomes],
        "what_if": [_what_if(plan, line) for line in plan.what_ifs],
        "hours": _hours(plan),
    }


def _load(plan: Plan) -> dict[str, Any]:
    """The load that was planned for, and what of it was simulated."""
    question, demand = plan.question, plan.demand
    own = question.own_qps
    found = {
        "mean_qps": number(question.mean_qps),
        "trace_qps": None if own is None else number(own),
        "headroom_percent": number(100 * question.headroom),
        "over_time": "constant" if demand is None else "as the trace",
    }
    if demand is None:
        return found | {"requests_per_run": question.most_requests}
    window = demand.window
    return found | {
        "peak_qps": number(demand.qps[demand.peak]),
        "trace_hours": number(demand.span_s / 3600),
        "bins": demand.bins,
        "bin_minutes": number(demand.bin_s / 60),
        "simulated_from_minute": number(window.start_s / 60),
        "simulated_to_minute": number(window.end_s / 60),
        "simulated": "all of the trace" if window.whole else "its busiest part",
        "requests_per_run": number(round(window.requests)),
    }


def _price(plan: Plan) -> dict[str, Any] | None:
    price = plan.question.price(plan.question.card)
    if price is None:
        return None
    return {"gpu_hour_usd": price.usd_per_gpu_hour, "source": price.source, "hours_a_month": HOURS_A_MONTH}


def _what_if(plan: Plan, line: WhatIf) -> dict[str, Any]:
    found: dict[str, Any] = {"what": line.what, "gpus": line.gpus, "note": line.note}
    price = plan.question.price(line.question.card) if line.question is not None else None
    if price is not None and line.gpus is not None:
        found |= {
            "gpu_hour_usd": price.usd_per_gpu_hour,
            "usd_a_month": round(usd_a_month(line.gpus, price.usd_per_gpu_hour)),
        }
    return found


def _system(plan: Plan, found: Outcome) -> dict[str, Any]:
    """One system's fleet."""
    row: dict[str, Any] = {"system": found.system, "label": label(found.system), "policy": policy_of(found.system)}
    if found.sized is None or found.gpus is None:
        return row | {"gpus": None, "reason": found.reason}
    mean, breaks = plan.question.mean_qps, found.breaks
    row |= {
        "fleet": found.sized.fleet,
        "gpus": found.gpus,
        "gpus_by_seed": list(found.gpus_by_seed),
        "breaks_at_load": breaks and number(breaks.mean),
        "breaks_at_load_low": breaks and breaks.low and number(breaks.low),
        "breaks_at_load_high": breaks and breaks.high and number(breaks.high),
        "breaks_at_qps": breaks and number(breaks.mean * mean),
        "first_class": found.first_class,
        "attained_percent": {name: percent(share) for name, share in (found.attained or {}).items()},
    }
    return row | _cost(plan, found.gpus)


def _cost(plan: Plan, gpus: int) -> dict[str, Any]:
    """In USD: a month, and a million tokens (prompt and output; output alone) at the mean load."""
    question, trace = plan.question, plan.question.trace
    if (price := question.price(question.card)) is None:
        return {}
    month = usd_a_month(gpus, price.usd_per_gpu_hour)
    million = question.mean_qps * 3600 * HOURS_A_MONTH / 1e6
    prompt, output = float(trace.prompt_tokens.mean()), float(trace.output_tokens.mean())
    return {
        "usd_a_month": round(month),
        "usd_per_million_tokens": number(month / (million * (prompt + output))),
        "usd_per_million_output_tokens": number(month / (million * output)),
    }


def _hours(plan: Plan) -> dict[str, Any] | None:
    """The load and the replicas bin by bin, and what following them saves."""
    demand, question = plan.demand, plan.question
    if demand is None:
        return None
    systems = {}
    for found in plan.outcomes:
        if (hours := found.hours) is None:
            continue
        own = {"replicas": list(hours.replicas), "mean_replicas_paid": number(hours.scaled)}
        own |= {"saved_percent": number(100 * hours.saved)}
        if (price := question.price(question.card)) is not None:
            fewer = (hours.fixed - hours.scaled) * found.gpus_per_replica
            own["saved_usd_a_month"] = round(usd_a_month(fewer, price.usd_per_gpu_hour))
        own["tried"] = [{"bin": b, "replicas": n, "held": held} for b, n, held in hours.tried]
        systems[found.system] = own
    qps = [number(rate) for rate in demand.qps]
    return {"cold_start_s": question.cold_start_s, "qps": qps, "systems": systems}


def policy_of(system: str) -> str:
    """The policy that a system's pools run, in words."""
    words = {
        "sarathi-silo": "a pool for each class, FCFS; chunk 256 for interactive classes, 2048 for batch",
        "vllm-fcfs": "FCFS, vLLM's default chunk on this GPU",
        "vllm-priority": "by class, the most urgent first; vLLM's default chunk on this GPU",
    }
    return words.get(system) or (f"policy {system}" if system in BUILT_IN else system)


def sentence(plan: Plan) -> str:
    """The answer first, for a manager."""
    best, question = plan.best, plan.question
    if best is None or best.gpus is None:
        return "No Niyama fleet was planned that holds this load."
    load = f"{number(question.mean_qps):,} requests/s"
    more = f", with {question.headroom:.0%} to spare" if question.headroom else ""
    price = question.price(question.card)
    cost = "" if price is None else f" at USD {round(usd_a_month(best.gpus, price.usd_per_gpu_hour)):,} a month"
    text = f"{label(best.system)} serves {load}{more} on {gpus_text(best.gpus)} ({question.card.gpu}){cost}; "
    others = [found for found in plan.outcomes if not found.system.startswith("niyama")]
    text = f"{_caution(plan, best)}{text}"
    return text + "; ".join(_compared(best.gpus, found) for found in others) + "." if others else text[:-2] + "."


def _caution(plan: Plan, best: Outcome) -> str:
    """What a reader must know before the number: that it is a close call, or that runs were short for it."""
    question, breaks, gpus = plan.question, best.breaks, best.gpus or 1
    requests = question.most_requests if plan.demand is None else plan.demand.window.requests
    replicas = gpus / best.gpus_per_replica
    if requests < LEAST_PER_REPLICA * replicas:
        return f"Runs of {requests:.0f} requests are short for {replicas:.0f} replicas (give --requests): "
    if breaks is not None and breaks.low is not None and breaks.low < 1.0 + question.headroom:
        low, high = number(breaks.low), number(breaks.high or breaks.mean)
        return f"A close call, the first class breaks at {low} to {high} times the load: "
    return ""


def _compared(gpus: int, found: Outcome) -> str:
    """What another system takes."""
    name = label(found.system)[0].lower() + label(found.system)[1:]
    verb = "take" if found.system == "sarathi-silo" else "takes"
    if found.gpus is None:
        return f"{name} cannot meet every class's SLOs with any number"
    more = found.gpus - gpus
    than = "as many" if more == 0 else f"{abs(more)} {'more' if more > 0 else 'fewer'}"
    return f"{name} {verb} {found.gpus} ({than})"
