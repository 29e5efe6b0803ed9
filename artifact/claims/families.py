"""Files of claims, read into one mapping a claim. A folder holds a file per figure, table or section of the paper.

A file has a list `claims`, and may have `defaults` (fields of all its claims), `names` and `tables`; `common.yaml` in
the same folder has the names and tables that files share. A claim may be a family: `for: {trace: [code, conv], system:
[edf, niyama]}` makes four of it, the last variable changing first. In its texts `<trace>` is the value, and
`<trace.title>` what `names` says of it; a field that is nothing but `<trace.title>` takes what stands there as it is,
a number or a mapping too. `measure` is laid over the default one key by key, any other field replaces the default, and
what is null is left out. `xfail` is a reason for the whole family, or a list of reasons with the ids that they are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from artifact.config import ConfigError, Strict, parse, read_mapping

COMMON = "common.yaml"
VARIABLE = re.compile(r"<(\w+)(?:\.(\w+))?>")
Text = Annotated[str, Field(min_length=1)]
Value = str | int | float
Names = dict[str, dict[Value, dict[str, Any]]]
Row = tuple[str, dict[str, Any]]  # how an error names it: file and id; a claim's fields


class ClaimFile(Strict):
    """One file."""

    tables: dict[str, dict[str, Any]] = Field(default={}, description="what makes each table, by its name")
    names: Names = Field(default={}, description="variable -> value -> what it is called where")
    defaults: dict[str, Any] = Field(default={}, description="fields of every claim of the file")
    claims: list[dict[str, Any]] = Field(default=[], description="claims and families of them")


class Family(Strict):
    """What makes several claims of one."""

    id: Text
    variables: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(default={}, alias="for")


class ExpectedFailures(Strict):
    """Why some claims of a family are expected to fail."""

    reason: Text
    ids: Annotated[list[Text], Field(min_length=1)]


def read_claims(path: Path) -> tuple[dict[str, dict[str, Any]], list[Row]]:
    """The tables, and the claims of a file, or of a folder's files in the order of their names."""
    common = read_common(path)
    tables, rows = dict(common.tables), []
    for file in _files(path):
        own = _read(file)
        if not own.claims:
            raise ConfigError(f"{file}: must have a list `claims`")
        tables |= own.tables
        rows += [row for i, family in enumerate(own.claims) for row in _members(file, i, family, own, common.names)]
    return tables, rows


def read_common(path: Path) -> ClaimFile:
    """What the files of a folder, or a file and those next to it, share."""
    file = (path if path.is_dir() else path.parent) / COMMON
    return _read(file) if file.exists() else ClaimFile()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*.yaml") if file.name != COMMON)
    if not files:
        raise ConfigError(f"{path}: holds no file of claims (*.yaml)")
    return files


def _read(file: Path) -> ClaimFile:
    return parse(ClaimFile, read_mapping(file), str(file))


def _members(file: Path, number: int, family: Mapping[str, Any], own: ClaimFile, common: Names) -> Iterator[Row]:
    """The claims of one family, each with all its fields."""
    what = f"{file} claim {family.get('id', f'number {number + 1}')}"
    head = parse(Family, {key: family[key] for key in ("id", "for") if key in family}, what)
    fields = _over(own.defaults, {key: value for key, value in family.items() if key not in ("for", "xfail")}, what)
    chosen = [dict(zip(head.variables, values, strict=True)) for values in product(*head.variables.values())]
    members = [_Member(one, common | own.names, what).filled(fields, "") for one in chosen]
    ids = [str(member.get("id")) for member in members]
    reasons = _reasons(family.get("xfail"), ids, what)
    for name, member in zip(ids, members, strict=True):
        yield f"{file} claim {name}", member | {"id": name} | ({"xfail": reasons[name]} if name in reasons else {})


def _over(defaults: Mapping[str, Any], fields: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The claim's fields with the file's defaults beneath them."""
    measure = fields.get("measure", {})
    if not isinstance(measure, Mapping):
        raise ConfigError(f"{what}: measure is {measure!r}; it must have fields")
    return {**defaults, **fields, "measure": _merged(defaults.get("measure", {}), measure)}


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _reasons(xfail: Any, ids: list[str], what: str) -> dict[str, Any]:
    """Why each claim of a family is expected to fail, by its id; nothing for those that are not."""
    if not isinstance(xfail, list):
        return dict.fromkeys(ids, xfail) if xfail is not None else {}
    found: dict[str, Any] = {}
    for entry in (parse(ExpectedFailures, row, f"{what}: xfail {i + 1}") for i, row in enumerate(xfail)):
        for one in entry.ids:
            if one not in ids:
                raise ConfigError(f"{what}: xfail has id {one!r}; the claims here are {', '.join(ids)}")
            if one in found:
                raise ConfigError(f"{what}: xfail has id {one!r} twice; give one reason")
            found[one] = entry.reason
    return found


@dataclass(frozen=True)
class _Member:
    """One claim of a family, by the values of its variables."""

    chosen: Mapping[str, Value]
    names: Names
    what: str

    def filled(self, value: Any, field: str) -> Any:
        """`value` with what its variables stand for, and without keys that are null."""
        if isinstance(value, Mapping):
            items = {key: self.filled(one, f"{field}.{key}" if field else str(key)) for key, one in value.items()}
            return {key: one for key, one in items.items() if one is not None}
        if isinstance(value, list):
            return [self.filled(one, field) for one in value]
        if not isinstance(value, str):
            return value
        if whole := VARIABLE.fullmatch(value):
            return self._meant(whole, field)
        return VARIABLE.sub(lambda found: str(self._meant(found, field)), value)

    def _meant(self, found: re.Match[str], field: str) -> Any:
        variable, name = found.groups()
        if variable not in self.chosen:
            raise ConfigError(f"{self.what}: {field} has {found[0]}, and `for` has no {variable!r}")
        value = self.chosen[variable]
        if name is None:
            return value
        called = self.names.get(variable, {}).get(value, {})
        if name not in called:
            raise ConfigError(f"{self.what}: {field} has {found[0]}, and `names` has no {variable}.{value}.{name}")
        return called[name]
