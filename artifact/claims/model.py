"""What a claim is, as strict models. `python -m artifact verify` checks every one of those in artifact/claims/.

A claim says how its number is computed from a results table (Measure), and what is expected and where that is printed
(Expected); a table, what makes it and what that costs (Source). Nothing in it is executed: a measure is filters, a
column and two small words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from artifact.claims.families import Row, Text, read_claims, read_common
from artifact.config import ConfigError, Strict, parse
from figures import paper

CLAIMS = Path(__file__).parent
Scalar = str | int | float | bool
Filters = dict[str, Scalar | list[Scalar]]
#: Units of numbers that belong to one machine: they can be compared on the same model and GPUs only.
ABSOLUTE_UNITS = ("QPS", "s", "ms", "tokens/s", "tokens", "GPUs")


class Measure(Strict):
    """A number from one results table: a value per seed, from two sides where it is a comparison."""

    table: Text = Field(description="NAME of tables/NAME.parquet")
    where: Filters = Field(
        default={}, description="rows of both: column -> value, or a list; `trace` is met by its synthetic one too"
    )
    column: Text = Field(description="column; a list in it holds a value per seed")
    of: Filters = Field(default={}, description="further filters of the first")
    against: Filters | None = Field(default=None, description="further filters of the second")
    against_column: Text | None = Field(default=None, description="column of the second, where it is another")
    combine: Literal["value", "ratio", "difference", "fewer", "more"] = Field(
        default="value",
        description="value: of alone; ratio: of / against; difference: of - against; fewer: 1 - ratio; more: ratio - 1",
    )
    reduce: Literal["only", "same", "mean", "max", "min", "holds_until"] = Field(
        default="only",
        description="rows to a value per seed. only: there is one; same: one value whatever the seed; holds_until: the "
        "highest `along` such that the column is at most `limit` in all rows there and below",
    )
    along: Text | None = Field(default=None, description="holds_until: the column that rises")
    limit: float | None = Field(default=None, description="holds_until: the highest value that holds")

    @model_validator(mode="after")
    def _is_complete(self) -> Measure:
        if (self.combine == "value") != (self.against is None):
            raise ValueError(f"combine is {self.combine!r}: give `against` with the others, and only then")
        if self.against_column is not None and self.against is None:
            raise ValueError("against_column is given without `against`")
        if (self.reduce == "holds_until") != (self.along is not None and self.limit is not None):
            raise ValueError(f"reduce is {self.reduce!r}: give `along` and `limit` with holds_until, and only then")
        return self

    def filters(self, side: Filters, override: Filters | None = None) -> Filters:
        """The filters of one side. `override` replaces values of columns that the measure already filters by."""
        merged = {**self.where, **side}
        return merged | {column: value for column, value in (override or {}).items() if column in merged}


class Printed(Strict):
    """A number of the paper, by its place in figures/paper_values.yaml."""

    part: Text = Field(alias="in", description="top-level key")
    row: str | Filters = Field(default={}, description="key within it, or what the row holds; none: all there is")
    number: Text = Field(description="name in the row; of a number further in, the names or places with dots between")

    def look_up(self) -> tuple[float, str]:
        """The number, and where it is printed. ConfigError when it is not there."""
        rows = self._rows()
        found: Any = rows[0] if len(rows) == 1 else None
        for name in self.number.split("."):
            if isinstance(found, list):
                found = found[int(name)] if name.isdigit() and int(name) < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, bool) or not isinstance(found, int | float):
            name = f"in: {self.part}, row: {self.row}, number: {self.number}"
            raise ConfigError(f"{name} names {len(rows)} rows of paper_values.yaml, no number; name one")
        doubt = ", label uncertain" if self.number in rows[0].get("uncertain", ()) else ""
        return float(found), f"{rows[0].get('where', self.part)}{doubt}"

    def _rows(self) -> list[dict[str, Any]]:
        values = paper.values().get(self.part, [])
        if isinstance(self.row, str):
            return [values[self.row]] if isinstance(values, dict) and self.row in values else []
        listed = values if isinstance(values, list) else values.get("rows", [values])
        return [row for row in listed if all(row.get(key) == value for key, value in self.row.items())]


class Expected(Strict):
    """What the number should be: the paper's, combined as the measured ones are, or our own with its reason."""

    direction: Literal["within", "at_least", "at_most", "between"]
    of: Printed | None = None
    against: Printed | None = None
    low: Printed | None = Field(default=None, description="between: the lower end")
    high: Printed | None = Field(default=None, description="between: the upper end")
    value: float | None = Field(default=None, description="ours, in the claim's unit; with `because`")
    because: Text | None = None
    percent: Annotated[float, Field(ge=0)] = Field(default=0.0, description="tolerance, percent of what is expected")
    points: Annotated[float, Field(ge=0)] = Field(default=0.0, description="tolerance, in the claim's unit")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Expected:
        given = {name for name in ("of", "low", "high", "value") if getattr(self, name) is not None}
        if given != ({"low", "high"} if self.direction == "between" else given & {"of", "value"}) or len(given) == 0:
            raise ValueError(f"expected has {sorted(given)}: give low and high with between, else of or value")
        if given == {"of", "value"}:
            raise ValueError("expected has both of and value: give one")
        if (self.value is None) != (self.because is None):
            raise ValueError("a value of our own needs `because`, and nothing else does")
        if self.direction == "within" and not (self.percent or self.points):
            raise ValueError("within needs a tolerance: percent or points")
        return self


class Source(Strict):
    """A table that claims are read from: what makes it, all of it, from an installed checkout, and what that takes."""

    target: Text = Field(description="what to run: of `snakemake --cores all`, or of make")
    path: Text | None = Field(default=None, description="under results, where that is not tables/NAME.parquet")
    human_min: Annotated[float, Field(ge=0)] = 1.0
    compute_min: Annotated[float, Field(ge=0)] = Field(description="minutes on two cores")
    gpu_h: Annotated[float, Field(ge=0)] = 0.0
    disk_mb: Annotated[float, Field(ge=0)] = 1.0

    @property
    def command(self) -> str:
        """What to type."""
        return self.target if self.target.startswith("make ") else f"snakemake --cores all {self.target}"


class Claim(Strict):
    """One row of the claims table."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9.]+)*$")]
    paper: Text = Field(description="figure, table or section; or 'not in the paper'")
    statement: Text = Field(description="in our words")
    backend: Literal["sim", "emulated", "vllm-virtual", "cpu", "gpu", "latency-model", "profiles"] = "sim"
    unit: Literal["times", "%", "points", "QPS", "s", "ms", "tokens/s", "tokens", "GPUs"]
    measure: Measure
    expected: Expected
    least_requests: int | None = Field(default=None, description="a run of fewer requests says nothing about the claim")
    form: Text | None = Field(default=None, description="the form of a server sweep that it takes, such as full")
    same_hardware_as: Text | None = Field(
        default=None, description="the paper's configuration (its Table 1) that the latency model has to be of"
    )
    also: dict[str, Filters] = Field(default={}, description="other cases to show with it: title -> filters replaced")
    xfail: Text | None = Field(default=None, description="expected to fail, for this likely reason")

    @model_validator(mode="after")
    def _names_its_hardware(self) -> Claim:
        measure = self.measure
        absolute = measure.combine in ("value", "difference") and self.unit in ABSOLUTE_UNITS
        loads = "load_qps" in {*measure.where, *measure.of, *(measure.against or {})}
        if (absolute or loads) and self.same_hardware_as is None:
            raise ValueError("absolute loads and times do not compare across hardware: give same_hardware_as")
        if self.same_hardware_as is not None and self.same_hardware_as not in paper.values()["configurations"]:
            known = ", ".join(paper.values()["configurations"])
            raise ValueError(f"same_hardware_as is {self.same_hardware_as!r}; the paper's configurations are {known}")
        return self


class Claims(Strict):
    """All of them, and where their numbers are from."""

    tables: dict[str, Source] = Field(description="those that claims are read from, by name")
    claims: list[Claim] = Field(min_length=1)


def load_claims(path: Path = CLAIMS) -> Claims:
    """The claims of a file, or of a folder's files by name. ConfigError on the first problem: file, claim and field."""
    tables, rows = read_claims(path)
    claims = [parse(Claim, fields, what) for what, fields in rows]
    for (what, _), claim in zip(rows, claims, strict=True):
        _refuse_unprinted(claim.expected, what)
        if claim.measure.table not in tables:
            raise ConfigError(f"{what}: measure.table is {claim.measure.table!r}; `tables` must say what makes it")
    _refuse_twice(rows)
    used = {claim.measure.table for claim in claims}
    shared = set() if path.is_dir() else set(read_common(path).tables)  # one file need not use all
    if unused := sorted(set(tables) - used - shared):
        raise ConfigError(f"{path}: tables has {unused[0]!r}, and no claim is read from it; remove it")
    sources = {name: _source(name, fields, path) for name, fields in tables.items() if name in used}
    return Claims(tables=sources, claims=claims)


def table_minutes(path: Path = CLAIMS) -> dict[str, float]:
    """Minutes on two cores that each table takes, by its name, where a target of Snakemake makes just that."""
    sources = {name: _source(name, fields, path) for name, fields in read_common(path).tables.items()}
    return {name: source.compute_min for name, source in sources.items() if source.target == _target(name)}


def _source(name: str, fields: dict[str, Any], path: Path) -> Source:
    return parse(Source, {"target": _target(name), **fields}, f"{path} tables.{name}")


def _target(table: str) -> str:
    return f"results/tables/{table}.parquet"


def _refuse_unprinted(expected: Expected, what: str) -> None:
    for name in ("of", "against", "low", "high"):
        if (printed := getattr(expected, name)) is not None:
            try:
                printed.look_up()
            except ConfigError as error:
                raise ConfigError(f"{what}: expected.{name}: {error}") from None


def _refuse_twice(rows: list[Row]) -> None:
    seen: dict[str, str] = {}
    for what, fields in rows:
        if fields["id"] in seen:
            raise ConfigError(f"{what}: id {fields['id']!r} is used twice (also {seen[fields['id']]}); rename one")
        seen[fields["id"]] = what
