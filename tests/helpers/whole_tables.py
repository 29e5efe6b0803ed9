"""Made-up rows as tables with all columns of the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from artifact.results.schema import arrow_type, load_schema


def whole(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as table `name`: columns that they lack are null, but for those that may be absent."""
    schema, given = load_schema(), dict.fromkeys(column for row in rows for column in row)
    _, table = schema.of(name, given)
    names = dict.fromkeys([*given, *(column for column in table.columns if column not in table.optional)])
    types = {column: arrow_type(schema.columns[column].type) for column in names if column in schema.columns}
    return pa.table({column: pa.array([row.get(column) for row in rows], types.get(column)) for column in names})
