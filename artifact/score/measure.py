"""One policy in one cell: capacities and the values at each load, for every seed."""

from __future__ import annotations

from functools import partial
from typing import Any

from artifact.experiments.capacity import CRITERIA, Crossing, Search, crossings, worst_rates_of_run
from artifact.results.code_hash import code_of, digest
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.run import run, trace_of
from artifact.runs.spec import RunSpec
from artifact.score.axes import AXES, values_of_run
from artifact.score.suite import Cell
from niyama import load_card

STEPS = 40  # of the search's grid, within 1.0 times the load
DIGITS = 6  # of a value that a scorecard keeps
BY_CRITERION = dict(zip(CRITERIA, ("capacity_qps", "capacity_without_tbt_qps"), strict=True))


def measure(cell: Cell, system: str) -> dict[str, Any]:
    """What a scorecard says of a cell: what was run, the bound, and each axis's value for each seed."""
    bound = bound_qps(cell)
    axes: dict[str, list[float]] = {}
    search = Search(cell.at(system, cell.load_qps), cell.load_qps / STEPS, measure=partial(_rates, cell, system))
    for criterion, found in crossings(search, reversed(CRITERIA), cell.seeds, bound, cell.load_qps, bound):
        axes[BY_CRITERION[criterion]] = [_highest(crossing) for crossing in found]
    for at, times in enumerate(cell.times):
        for seed in range(cell.seeds):
            spec = cell.at(system, times * cell.load_qps, seed)
            done = run(spec.model_copy(update={"requests": cell.load_requests}))
            for name, value in values_of_run(done.requests, done.run, at).items():
                axes.setdefault(name, []).append(value)
    return {
        "about": cell.about,
        "trace": trace_of(cell.spec).name,
        "latency": cell.spec.latency_name,
        "predictor": cell.spec.predictor_label,
        "classes": [c.model_dump(exclude_none=True, exclude={"when"}) for c in cell.spec.classes],
        "load_qps": cell.load_qps,
        "requests": cell.spec.requests,
        "load_requests": cell.load_requests,
        "bound_qps": bound,
        "axes": {name: [float(f"{value:.{DIGITS}g}") for value in axes[name]] for name in AXES if name in axes},
    }


def made_by(cell: Cell) -> str:
    """A hash of the code, cards and traces that a cell's numbers depend on, but for the policy's own file."""
    spec = cell.spec
    return digest(code_of("score", spec.latency, spec.predictor_name, spec.trace))


def bound_qps(cell: Cell) -> float:
    """Highest load that any scheduler could sustain in a cell, even one that knows every length (fluid bound)."""
    source = trace_of(cell.spec)
    return fluid_bound_qps(load_card(cell.spec.latency), source.prompt_tokens, source.output_tokens, chunk_step=8)


def _rates(cell: Cell, system: str, spec: RunSpec) -> dict[str, float]:
    return worst_rates_of_run(cell.at(system, spec.load_qps, spec.seed))


def _highest(found: Crossing) -> float:
    """The crossing; the highest load of the search where nothing fails, and 0 where nothing holds."""
    return found.capacity_qps if found.capacity_qps is not None else found.passes_qps or 0.0
