"""Fig 8: goodput of a prefill node of a disaggregated deployment, by the policy of its prefill pool.

One prefill node and as many decode nodes as keep away from their limits (`decode_nodes`). A prefill node computes up to
`chunk_tokens` a step, has no decodes to make room for, and so needs no dynamic chunking: policies differ in order and
relegation alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.capacity import CRITERIA, Search, capacity_row, crossings, in_turn, worst_rates
from artifact.experiments.scenario_config import DisaggregatedExperiment
from artifact.results import metrics
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.run import BACKEND, arrivals_of, trace_of
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.runs.systems import DISAGGREGATED
from niyama import BUILT_IN, Policy, load_card, rules
from niyama.latency import ModelCard, empty_batch, seconds
from niyama.sim import Disaggregated, DisaggregatedRun, KVLink, Requests, shared, simulate_disaggregated

PREFILL_ONLY = "violation_rate_prefill_only"  # as the authors count: a request is over with its first token
DECODE_SIDE = (
    "decode_nodes",
    "decode_wait_p99_s",
    "decodes_mean",
    "decodes_peak",
    "decode_kv_peak_tokens",
    "decode_preemptions",
    "kv_transfer_p99_s",
)
DECODE_POLICY = replace(BUILT_IN["sarathi-fcfs"], name="decode", max_chunk_tokens=8192, kv_reserve=0.0)


def prefill_policy(system: str, chunk_tokens: int) -> Policy:
    """The policy of a disaggregated system's prefill pool."""
    return replace(
        BUILT_IN[DISAGGREGATED[system]],
        name=system,
        prefill_budget=rules.fixed_chunk,
        max_chunk_tokens=chunk_tokens,
        min_chunk_tokens=min(128, chunk_tokens),
        estimator="constant",  # every request of this pool ends with its first token
        estimator_value=1.0,
    )


def decode_nodes(
    load_qps: float,
    prompt_tokens: np.ndarray,
    output_tokens: np.ndarray,
    card: ModelCard,
    classes: tuple[ClassSpec, ...],
    share: float,
) -> int:
    """Least number of decode nodes that `load_qps` keeps, on average, at `share` of every limit of theirs.

    The limits of a node: requests that decode at a time, its KV, and a step as long as the strictest TBT. Lengths are
    the trace's. ConfigError when a node cannot decode even one request at that share.
    """
    further = output_tokens - 1.0
    context = float((further * (prompt_tokens + output_tokens / 2)).sum() / max(further.sum(), 1.0))
    most = int(share * min(DECODE_POLICY.max_running, card.kv_tokens / max(context, 1.0)))
    tbt_s, model = min((c.tbt_s for c in classes if c.tbt_s), default=np.inf), card.build()
    while most > 0 and seconds(model, empty_batch(most, int(most * context))) > share * tbt_s:
        most -= 1
    if most == 0:
        raise ConfigError(f"decode_share is {share}: no decode node of {card.name!r} stays within it; raise it")
    node_tokens_s = most / seconds(model, empty_batch(most, int(most * context)))
    return max(1, int(np.ceil(load_qps * further.mean() / node_tokens_s)))


def build_system(experiment: DisaggregatedExperiment, spec: RunSpec) -> Disaggregated:
    """The system of `spec` (one prefill node), with decode nodes for its load."""
    source, card = trace_of(spec), load_card(spec.latency)
    lengths = source.prompt_tokens, source.output_tokens
    nodes = decode_nodes(spec.load_qps, *lengths, card, spec.classes, experiment.decode_share)
    kv_bytes = experiment.kv_bytes_per_token[spec.latency]
    return Disaggregated(
        spec.system,
        shared(prefill_policy(spec.system, experiment.chunk_tokens)),
        shared(DECODE_POLICY, nodes),
        KVLink(kv_bytes, experiment.link_bytes_per_s, experiment.link_delay_s),
        experiment.batch_allowance_s,
    )


def measure(experiment: DisaggregatedExperiment, spec: RunSpec) -> dict[str, float]:
    """One run: the worst class's violation rate by CRITERIA and PREFILL_ONLY, and how the decode pool was."""
    system = build_system(experiment, spec)
    requests = arrivals_of(spec)
    executor, predictor = load_card(spec.latency), load_card(spec.predictor_name)
    done = simulate_disaggregated(system, requests, executor, predictor, noise=spec.noise, seed=spec.seed)
    columns = metrics.request_columns(requests, done.run)
    return {
        **worst_rates(requests, columns),
        PREFILL_ONLY: _prefill_only_rate(requests, columns["ttft_s"]),
        "decode_nodes": system.decode.replicas,
        **decode_side(requests, done),
    }


def _prefill_only_rate(requests: Requests, first_token_s: np.ndarray) -> float:
    """The worst class's violation rate, were every request over with its first token."""
    slo_s = np.array([c.deadline_slo_s for c in requests.classes])[requests.class_index]
    late = first_token_s > slo_s + metrics.ROUNDING_S
    rates, _ = metrics.violation_rates(requests, {"violated": late, "missed_first_or_last": late})
    return float(np.nanmax(rates))


def decode_side(requests: Requests, done: DisaggregatedRun) -> dict[str, float]:
    """How near the decode pool was to its limits, over the whole run.

    wait: from the KV's arrival to the first step with it, s. decodes: of one node at a time, mean and peak. peak KV:
    tokens of one node at a time, counting each request's whole context from its first step to its last. transfer:
    from the first token to the KV's arrival, s.
    """
    run, decoded = done.decode, done.decoded
    began_s, ended_s = run.first_scheduled_s, run.token_s[run.token_start[1:] - 1]
    context = (requests.prompt_tokens + requests.output_tokens)[decoded].astype(float)
    transfer_s = done.kv_arrived_s - done.run.token_s[done.run.token_start[decoded]]
    nodes = [np.flatnonzero(run.replica == node) for node in np.unique(run.replica)]
    span_s = float(ended_s.max() - began_s.min()) if len(decoded) else 0.0
    return {
        "decode_wait_p99_s": float(np.quantile(began_s - done.kv_arrived_s, 0.99)) if len(decoded) else 0.0,
        "decodes_mean": float((ended_s - began_s).sum() / span_s / len(nodes)) if span_s else 0.0,
        "decodes_peak": max((_peak(began_s[n], ended_s[n], np.ones(len(n))) for n in nodes), default=0.0),
        "decode_kv_peak_tokens": max((_peak(began_s[n], ended_s[n], context[n]) for n in nodes), default=0.0),
        "decode_preemptions": float(run.preemptions.sum()),
        "kv_transfer_p99_s": float(np.quantile(transfer_s, 0.99)) if len(decoded) else 0.0,
    }


def _peak(began_s: np.ndarray, ended_s: np.ndarray, amount: np.ndarray) -> float:
    """Most of `amount` present at a time; what ends at an instant is gone before what begins then."""
    times_s, changes = np.concatenate([ended_s, began_s]), np.concatenate([-amount, amount])
    return float(np.cumsum(changes[np.argsort(times_s, kind="stable")]).max())


def capacities(
    experiment: DisaggregatedExperiment,
    trace_name: str,
    latency: str,
    on_run: Callable[[RunSpec], None] | None = None,
) -> list[dict[str, object]]:
    """Goodput rows of all systems on one trace and latency model: one per system and criterion.

    Columns as of `find_capacity`, per prefill node, and the decode side (`decode_side`) at the highest load seen to
    hold: the worst seed's, null where none held.
    """
    if latency not in experiment.kv_bytes_per_token:
        known = ", ".join(experiment.kv_bytes_per_token)
        raise ConfigError(f"kv_bytes_per_token has no entry for latency model {latency!r} (it has {known}); add one")
    longer = experiment.longer_runs.get(latency, 1.0)
    one = {"trace": trace_name, "latency": latency, "load_qps": 1.0}
    specs = [RunSpec(**one, system=name, requests=round(n * longer)) for name, n in experiment.systems.items()]
    found = in_turn(specs, partial(_find, experiment, on_run))
    return [row for rows in found for row in rows]


def _find(
    experiment: DisaggregatedExperiment,
    on_run: Callable[[RunSpec], None] | None,
    spec: RunSpec,
    guess_qps: float | None,
) -> list[dict[str, object]]:
    """One system's rows."""
    source, step_qps = trace_of(spec), experiment.step_qps
    ended = np.ones_like(source.output_tokens)
    bound = fluid_bound_qps(load_card(spec.latency), source.prompt_tokens, ended, experiment.chunk_tokens)
    search = Search(spec, step_qps, on_run, partial(measure, experiment))
    criteria, rows = (PREFILL_ONLY, *reversed(CRITERIA)), []
    for criterion, found in crossings(search, criteria, experiment.seeds, bound, guess_qps, near="passes_qps"):
        held = [search.points[round(c.passes_qps / step_qps), c.seed] for c in found if c.passes_qps]
        side = {name: max((point[name] for point in held), default=None) for name in DECODE_SIDE}
        row = capacity_row(spec, criterion, found, bound, 1, source.name)
        rows.append({"backend": BACKEND, "run_length": "paper", **row, **side})
    return rows
