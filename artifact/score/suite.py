"""The suite's file: cells, each a run without a policy, and how often and how long it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from artifact.config import ConfigError, Count, Load, Positive, Strict, parse, read_mapping
from artifact.runs.run import arrivals_of
from artifact.runs.spec import RunSpec

SUITE = Path(__file__).with_name("suite.yaml")
LEAST_SEEDS, MOST_SEEDS = 2, 100  # an interval takes two
#: What a cell's `run` cannot say: the suite, the policy or the load does.
_NOT_OF_A_CELL = ("system", "load_qps", "requests", "seed", "policy", "replicas", "routing")
ANY_POLICY = "niyama"


class CellText(Strict):
    """A cell as it is written."""

    about: Annotated[str, Field(min_length=1)] = Field(description="what it is, in a line")
    load_qps: Load = Field(description="requests/s that are 1.0 times the load")
    short: bool = Field(default=False, description="whether it is of the short form too")
    requests: Count | None = Field(default=None, description="of each run of a search; none: the suite's")
    load_requests: Count | None = Field(default=None, description="of each run at a load; none: the suite's")
    run: dict[str, Any] = Field(description="fields of a run")


class SuiteText(Strict):
    """A suite as it is written."""

    requests: Count = Field(description="of each run of a search for a capacity")
    long_requests: Count = Field(description="of the same in the long form")
    load_requests: Count = Field(description="of each run at one of the loads")
    seeds: Annotated[int, Field(ge=LEAST_SEEDS, le=MOST_SEEDS)] = Field(description="seeds 0 .. N-1 of each cell")
    times: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4, strict=False)] = Field(
        description="times the load at which runs are measured: below it, at it, above it, far above it"
    )
    classes: dict[str, Any] = Field(default_factory=dict, description="lists of classes, for YAML's anchors")
    cells: Annotated[dict[str, CellText], Field(min_length=1)] = Field(description="by name")


class Cell(Strict):
    """A cell, ready to run. spec: of a search; its system is replaced by the policy that is scored.

    load_requests: of a run at one of the loads, `times` the cell's.
    """

    name: str
    about: str
    spec: RunSpec
    load_requests: int
    seeds: int
    times: tuple[float, ...]

    @property
    def load_qps(self) -> float:
        """1.0 times the load."""
        return self.spec.load_qps

    def at(self, system: str, load_qps: float, seed: int = 0) -> RunSpec:
        """The run of a system at a load; waves keep their shape."""
        changes: dict[str, Any] = {"system": system, "load_qps": load_qps, "seed": seed}
        if isinstance(arrivals := self.spec.arrivals, dict) and arrivals.get("kind") == "square":
            grown = load_qps / self.load_qps
            changes["arrivals"] = {**arrivals, **{name: arrivals[name] * grown for name in ("low_qps", "high_qps")}}
        return self.spec.model_copy(update=changes)


def load_suite(path: Path = SUITE, *, long: bool = False, names: tuple[str, ...] = ()) -> list[Cell]:
    """The suite's cells: of the short form, or all with longer runs; or those called `names`. Raises ConfigError."""
    suite: SuiteText = parse(SuiteText, read_mapping(path), str(path))
    for name in names:
        if name not in suite.cells:
            raise ConfigError(f"--cells has {name!r}; {path} has {', '.join(suite.cells)}")
    chosen = {n: c for n, c in suite.cells.items() if n in names or (not names and (long or c.short))}
    if not chosen:
        raise ConfigError(f"{path}: no cell has `short: true`; give --long, or --cells")
    return [_cell(path, suite, name, long) for name in chosen]


def _cell(path: Path, suite: SuiteText, name: str, long: bool) -> Cell:
    written, where = suite.cells[name], f"{path} cell {name}"
    if said := [field for field in _NOT_OF_A_CELL if field in written.run]:
        raise ConfigError(f"{where}: run has {said[0]}, which a cell cannot set; remove it")
    run = {key: _beside(path, value) for key, value in written.run.items()}
    requests = written.requests or (suite.long_requests if long else suite.requests)
    fields = {**run, "system": ANY_POLICY, "load_qps": written.load_qps, "requests": requests}
    spec = parse(RunSpec, fields, where)
    try:
        arrivals_of(spec.model_copy(update={"requests": min(requests, 10)}))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    at_loads = written.load_requests or suite.load_requests
    return Cell(name=name, about=written.about, spec=spec, load_requests=at_loads, seeds=suite.seeds, times=suite.times)


def _beside(path: Path, value: Any) -> Any:
    return str(path.parent / value) if isinstance(value, str) and value.startswith("./") else value
