"""The experiment files: what `snakemake` runs. A grid or a search is an entry of its own, and one table of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from artifact.config import ConfigError, Count, Loads, LoadStep, Names, Strict, parse
from artifact.experiments.like import read_values
from artifact.experiments.panel_config import Panels
from artifact.experiments.scenario_config import (
    ClusterExperiment,
    DisaggregatedExperiment,
    OverloadExperiment,
    refuse_axes,
)
from artifact.runs.recorded import with_classes_of_the_trace
from artifact.runs.spec import RunSpec, every
from artifact.runs.systems import build_system
from niyama import load_card

SCENARIOS = ("disaggregated", "overload", "overload_windows")
#: Tables with rules of their own.
TAKEN = ("cluster", "engine", "servers", "fidelity", "overhead", "predictor_accuracy", *SCENARIOS, *Panels.model_fields)
#: Entries that the figures of the default target are drawn from, by section.
NEEDED = {"grids": "summary", "searches": "capacity"}
#: Sections of earlier files: the entry that each is now, and what that adds.
FORMER = {
    "capacity": "searches.capacity, with label_column: run_length, variants: {paper: {}}, "
    "step_qps: 0.05 if it had none",
    "long_capacity": "searches.long_capacity, with continues: capacity, label_column: run_length, "
    "variants: {long: {}}, step_qps: 0.05 if it had none",
    "sweep": "grids.summary, with label_column: null",
}
#: Which column the figures and docs/TABLES.md expect the labels in; elsewhere it is `variant`.
LABEL_COLUMNS: dict[str, str | None] = {"summary": None, "capacity": "run_length"}
RUN_LENGTHS = {"paper", "long"}
TABLE_NAME = re.compile(r"[a-z][a-z0-9_]*")


class NamedExperiment(Strict):
    """What grids and searches share: systems, in variants that differ in fields of the `RunSpec`, with every seed."""

    latencies: Names | None = Field(default=None, description="latency models; none: the file's")
    systems: Names
    seeds: Count = Field(description="seeds 0 .. N-1")
    run: dict[str, Any] = Field(default_factory=dict, description="RunSpec fields that all runs share")
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=lambda: {"": {}},
        min_length=1,
        description="label -> RunSpec fields that it changes; each replaces that of `run` whole",
    )
    label_column: Literal["variant", "run_length"] | None = Field(
        default="variant", description="column of the variants' labels; null: none, for a single variant"
    )

    def cases(self, **axes: Any) -> Iterator[tuple[str, RunSpec]]:
        """Label and run of every variant and system, at the given values of the other axes. Raises ConfigError."""
        for label, changes in self.variants.items():
            for system in self.systems:
                values = {**axes, "system": system, **self.run, **changes}
                spec = parse(RunSpec, values, f"variant {label!r}" if label else "run")
                yield label, with_classes_of_the_trace(spec)

    def first_cases(self) -> Iterator[tuple[str, RunSpec]]:
        """Cases that between them have every value of the configuration, except latency models."""
        raise NotImplementedError

    def check(self, latencies: tuple[str, ...]) -> None:
        """Raise ValueError on the first value that makes no sense."""
        if self.label_column is None and len(self.variants) > 1:
            raise ConfigError("label_column is null: nothing would tell the variants apart; leave it out")
        for part, fields in {"run": self.run, **{f"variants.{k}": v for k, v in self.variants.items()}}.items():
            refuse_axes(part, fields)
        for latency in latencies:
            load_card(latency)
        for label, spec in self.first_cases():
            try:
                build_system(spec.system, spec.classes, spec.replicas, spec.routing, spec.policy)
                load_card(spec.predictor_name)
                spec.workload_spec()
            except ValueError as error:
                raise ConfigError(f"variant {label!r}: {error}" if label else str(error)) from None


class Grid(NamedExperiment):
    """Every variant of every system at every load with every seed."""

    traces: Names
    loads_qps: Loads
    requests: Count = Field(description="requests per run; a variant may change it")

    def specs(self, trace: str, latency: str) -> list[tuple[str, RunSpec]]:
        """Label and run of everything on one trace and latency model."""
        one = {"trace": trace, "latency": latency, "requests": self.requests}
        return [
            (label, spec)
            for label, first in self.cases(**one, load_qps=float(self.loads_qps[0]))
            for spec in every(first, [first.system], self.loads_qps, self.seeds)
        ]

    def first_cases(self) -> Iterator[tuple[str, RunSpec]]:
        for load in self.loads_qps:
            yield from self.cases(trace=self.traces[0], requests=self.requests, load_qps=float(load))


class Search(NamedExperiment):
    """Capacity of every variant of every system."""

    requests: dict[str, Count] = Field(min_length=1, description="requests per run, by trace; a variant may change it")
    step_qps: LoadStep = 0.1
    continues: str | None = Field(
        default=None, description="a search whose table gets these rows too, and at whose answers these searches start"
    )

    @property
    def traces(self) -> tuple[str, ...]:
        """The traces, in the order of the file."""
        return tuple(self.requests)

    def specs(self, trace: str, latency: str, requests: int) -> list[tuple[str, RunSpec]]:
        """Label and run, but for load and seed, of every search on one trace and latency model."""
        return list(self.cases(trace=trace, latency=latency, requests=requests, load_qps=1.0))

    def first_cases(self) -> Iterator[tuple[str, RunSpec]]:
        for trace, requests in self.requests.items():
            yield from self.cases(trace=trace, requests=requests, load_qps=1.0)


class Experiments(Strict):
    """A configuration file: what `snakemake` runs. `workflows/config/paper.yaml` is the default."""

    latencies: Names
    cluster: ClusterExperiment
    disaggregated: DisaggregatedExperiment | None = None
    overload: OverloadExperiment | None = None
    grids: dict[str, Grid] = Field(default_factory=dict, description="table -> its runs, each at a given load")
    searches: dict[str, Search] = Field(default_factory=dict, description="table -> its capacity searches")
    panels: Panels = Field(default_factory=Panels, description="what looks inside runs (`Panels`)")

    @property
    def named(self) -> dict[str, Grid | Search]:
        """Grids and searches by name."""
        return {**self.grids, **self.searches}

    def entries_of(self, table: str) -> tuple[str, ...]:
        """The grid or search of that name, and the searches whose rows join its table."""
        return (table, *(name for name, search in self.searches.items() if search.continues == table))

    @property
    def tables(self) -> tuple[str, ...]:
        """Every table that the file's experiments make, real servers' apart."""
        more = ("disaggregated",) if self.disaggregated else ()
        more += ("overload", "overload_windows") if self.overload else ()
        return ("cluster", "predictor_accuracy", *more, *self.named_tables, *self.panels.tables)

    @property
    def named_tables(self) -> tuple[str, ...]:
        """The tables of grids and searches."""
        return (*self.grids, *(name for name, search in self.searches.items() if search.continues is None))

    def latencies_of(self, experiment: NamedExperiment) -> tuple[str, ...]:
        """The latency models it runs with."""
        return experiment.latencies or self.latencies


def load_experiments(path: Path) -> Experiments:
    """The experiments of a configuration file. ConfigError on the first value that makes no sense."""
    values = read_values(path)
    for section in FORMER.keys() & values:
        raise ConfigError(f"{path}: {section} is no section any more; write it as {FORMER[section]}")
    found = parse(Experiments, values, str(path))
    for section, name in NEEDED.items():
        if name not in getattr(found, section):
            raise ConfigError(f"{path}: {section} has no {name!r}, which figures are drawn from; add it")
    _check(f"{path}: cluster", partial(found.cluster.check, found.latencies[0]))
    for section in ("disaggregated", "overload"):
        if getattr(found, section) is not None:
            _check(f"{path}: {section}", getattr(found, section).check)
    for section, experiments in (("grids", found.grids), ("searches", found.searches)):
        for name, experiment in experiments.items():
            where = f"{path}: {section}.{name}"
            if not TABLE_NAME.fullmatch(name):
                raise ConfigError(f"{where}: the name is {name!r}; use lower-case letters, digits and _")
            if name in TAKEN or (section == "searches" and name in found.grids):
                raise ConfigError(f"{where}: there is another table {name!r}; choose another name")
            _check(where, partial(experiment.check, found.latencies_of(experiment)))
    for name, search in found.searches.items():
        if search.continues is not None:
            _check(f"{path}: searches.{name}", partial(_check_continues, found, search))
    for name, experiment in found.named.items():
        section, table = "grids" if name in found.grids else "searches", getattr(experiment, "continues", None) or name
        _check(f"{path}: {section}.{name}", partial(_check_labels, table, experiment))
    return found


def _check_labels(table: str, experiment: NamedExperiment) -> None:
    """ValueError when the labels would stand in another column than the table has, or say no run length."""
    wanted, labels = LABEL_COLUMNS.get(table, "variant"), experiment.variants.keys()
    if experiment.label_column != wanted:
        given = experiment.label_column or "null"
        raise ValueError(f"label_column is {given!r}; for table {table} write label_column: {wanted or 'null'}")
    if wanted == "run_length" and not labels <= RUN_LENGTHS:
        raise ValueError(f"variants are {', '.join(map(repr, labels))}; label them {' or '.join(sorted(RUN_LENGTHS))}")


def _check_continues(found: Experiments, search: Search) -> None:
    """ValueError when there is no search to continue, or it has no rows for one of the traces and latency models."""
    other = found.searches.get(search.continues)
    if other is None or other.continues is not None or other.label_column != search.label_column:
        raise ConfigError(f"continues is {search.continues!r}; name a search with the same label_column")
    if not set(search.traces) <= set(other.traces) or not set(found.latencies_of(search)) <= set(
        found.latencies_of(other)
    ):
        raise ConfigError(f"continues is {search.continues!r}, which has not all of its traces and latency models")


def _check(where: str, check: Callable[[], None]) -> None:
    """Say where a value stands that makes no sense."""
    try:
        check()
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def named_experiment(path: Path, name: str, kind: type[Grid] | type[Search]) -> Any:
    """The grid or the search called `name`. Raises ConfigError."""
    found = load_experiments(path)
    own = found.grids if kind is Grid else found.searches
    if name not in own:
        known = ", ".join(own) or "those of another file"
        raise ConfigError(f"{path}: there is no {kind.__name__.lower()} {name!r}; use one of {known}")
    return own[name]
