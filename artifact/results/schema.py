"""What results tables hold, as tables.yaml says it: the check of a table that is written, and docs/TABLES.md.

A table is known by its file's name, or by its columns: a grid or search of one's own may be called anything. Other
files (raw times of a run, step-time profiles) have no schema here and are not checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifact.errors import CommandError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = Path(__file__).with_name("tables.yaml")
LIST, ANY_CLASS = "list of ", "<class>"


class SchemaError(CommandError):
    """A table is not what its schema says; names the table and its columns."""


@dataclass(frozen=True)
class Column:
    """One column: its unit ("" where there is none), its Arrow type and what it means."""

    name: str
    type: str
    meaning: str
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """What one row is, and which columns there are; optional ones may be absent, others may not."""

    row: str
    columns: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    known_by: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """tables.yaml, read; `raw` is the file as it stands, for the page."""

    columns: Mapping[str, Column]
    kinds: Mapping[str, Table]
    tables: Mapping[str, Table]
    raw: Mapping[str, Any]

    def of(self, name: str, columns: Collection[str]) -> tuple[str, Table] | None:
        """Name and schema of the table or kind that a file of this name with these columns is; None: no known one."""
        if name in self.tables:
            return name, self.tables[name]
        # by columns first: a grid of a user may have the name of one of our searches
        alike = (item for item in self.kinds.items() if set(item[1].known_by) <= set(columns))
        named = (item for item in self.kinds.items() if name in item[1].names)
        return next(alike, None) or next(named, None)


@cache
def load_schema() -> Schema:
    """Read tables.yaml; a name that it does not define is a KeyError."""
    import yaml

    raw = yaml.load(SCHEMA.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    columns = {
        name: Column(name, entry["type"], entry["meaning"], entry.get("unit", ""))
        for section in raw["columns"].values()
        for entry in section
        for name in entry["names"]
    }
    kinds, tables = (
        {name: _table(entry, raw["sets"], columns) for name, entry in raw[part].items()} for part in ("kinds", "tables")
    )
    return Schema(columns, kinds, tables, raw)


def _table(entry: Mapping[str, Any], sets: Mapping[str, list[str]], columns: Mapping[str, Column]) -> Table:
    names = tuple(columns[name].name for listed in entry["columns"] for name in sets.get(listed, [listed]))
    known = (tuple(entry.get(part, ())) for part in ("known_by", "names"))
    return Table(entry["row"], names, frozenset(entry.get("optional", ())), *known)


def check_table(path: Path, table: pa.Table) -> None:
    """SchemaError when `table`, to be written to `path`, has a schema and is not as that says."""
    schema = load_schema()
    known = schema.of(path.stem, table.column_names)
    if known is None or table.num_columns == 0:  # a part without rows has no columns either
        return
    name, expected = known
    if wrong := list(differences(table.schema, expected, schema.columns)):
        raise SchemaError(
            f"{path}: does not match table {name!r} of artifact/results/{SCHEMA.name}: {'; '.join(wrong)}"
        )


def differences(found: pa.Schema, expected: Table, columns: Mapping[str, Column]) -> Iterator[str]:
    """Each column that is unknown, missing or of another type. A column of nulls alone has any type."""
    names = {name: _described(name, expected) for name in found.names}
    for name, described in names.items():
        if described is None:
            yield f"column {name!r} is unknown"
        elif not _is_a(found.field(name).type, columns[described].type):
            yield f"column {name!r} is {found.field(name).type}, not {columns[described].type}"
    for name in expected.columns:
        if name not in names.values() and name not in expected.optional:
            yield f"column {name!r} is missing"


def _described(name: str, expected: Table) -> str | None:
    """The table's column that describes `name`; None where no column does."""
    if name in expected.columns:
        return name
    start = (column.removesuffix(ANY_CLASS) for column in expected.columns if column.endswith(ANY_CLASS))
    return next((f"{text}{ANY_CLASS}" for text in start if name.startswith(text)), None)


def _is_a(found: pa.DataType, wanted: str) -> bool:
    import pyarrow as pa

    if pa.types.is_list(found) and wanted.startswith(LIST):
        return _is_a(found.value_type, wanted.removeprefix(LIST))
    return pa.types.is_null(found) or found == arrow_type(wanted)


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type of a column by its name in tables.yaml."""
    import pyarrow as pa

    return pa.list_(arrow_type(text.removeprefix(LIST))) if text.startswith(LIST) else pa.type_for_alias(text)
