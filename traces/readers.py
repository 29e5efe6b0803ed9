"""Readers: from a trace file to validated arrays of lengths, arrival times and what else it knows of its requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from traces import cells, checks
from traces.catalog import Entry
from traces.cells import Fault
from traces.documents import Columns
from traces.errors import TraceError
from traces.layouts import BY_NAME, Layout, recognised
from traces.lengths import Extras, Lengths, Reading, Understood, require_lengths
from traces.tabular import Tabular, look_into

#: Readers of the catalog -> the layouts of their files.
_OF_READER = {
    "azure-csv": "azure",
    "sharegpt-csv": "sharegpt",
    "burstgpt-csv": "burstgpt",
    "mooncake-jsonl": "mooncake",
}
_LINES_SHOWN = 5


def read(entry: Entry, path: Path | str) -> Lengths:
    """Read the file at `path`, which is that of `entry`.

    Raises TraceError naming file, line (from 1), column, value and fix for the first bad row, and for a data
    set whose rows are not token lengths.
    """
    require_lengths(entry)
    table, layout = look_into(Path(path)), BY_NAME[_OF_READER[entry.reader]]
    missing = [name for name in layout.columns.values() if name.lower() not in {n.lower() for n in table.names}]
    if missing:
        raise TraceError(f"{path}: has {list(table.names)}, and lacks {missing}; this is not the expected file")
    return _Rows(table, replace(layout, optional={}), say=False).lengths(None)


def read_file(path: Path, reading: Reading) -> Lengths:
    """Read a user's file, whose layout is told by its columns. The notes say what was understood, and what dropped.

    Raises TraceError naming file, line (from 1), column, value and fix for the first bad row, and where the layout
    is unknown.
    """
    if reading.time_unit is not None and reading.time_unit not in cells.UNITS:
        raise TraceError(f"--time-unit is {reading.time_unit!r}; use {', '.join(cells.UNITS)}")
    return read_table(look_into(path), reading)


def read_table(table: Tabular, reading: Reading) -> Lengths:
    """The same of a table from elsewhere."""
    layout = recognised(table.names, reading.columns, str(table.path))
    return _Rows(table, layout, say=True).lengths(reading.time_unit)


def _is_within(name: str, column: str) -> bool:
    """Whether a column is that one, or a part of it."""
    return name.lower() == column or name.lower().startswith(f"{column}.")


class _Rows:
    """The rows of one file, read once. say: note what was understood too."""

    def __init__(self, table: Tabular, layout: Layout, *, say: bool) -> None:
        as_written = {name.lower(): name for name in table.names}
        optional = {role: name for role, name in layout.optional.items() if name.lower() in as_written}
        self.roles = {role: as_written[name.lower()] for role, name in {**layout.columns, **optional}.items()}
        failed = [name for name in table.names if layout.failed and _is_within(name, layout.failed)]
        more = [as_written[n.lower()] for n in (*layout.only, layout.parent) if n and n.lower() in as_written] + failed
        self.table, self.layout, self.say = table, layout, say
        self.columns: Columns = table.read(list(dict.fromkeys((*self.roles.values(), *more))))
        self.rows = len(next(iter(self.columns.values()), ()))
        self.kept = np.arange(self.rows)
        self.unused = tuple(name for name in table.names if name not in {*self.roles.values(), *more})
        self.notes: list[str] = []
        for name, value in layout.only.items():
            column = self.columns[as_written[name.lower()]]
            self._keep(cells.equals(column, value), f"{name} is not {value}")
        said = [cells.is_filled(self.columns[name]) for name in failed if name in self.columns]
        if said:
            self._keep(~np.logical_or.reduce(said), f"failed requests ({layout.failed})")

    def lengths(self, time_unit: str | None) -> Lengths:
        """The rows that are requests, in order of time."""
        if not self.kept.size:
            raise self._nothing()
        prompt, output = (self._of(role, cells.tokens) for role in ("prompt", "output"))
        unit, time_s = "", None
        if "time" in self.roles:
            time_s, unit = self._of("time", lambda column: cells.seconds(column, time_unit, self.layout.unit))
        elif time_unit is not None:
            raise TraceError(f"{self.table.path}: --time-unit is {time_unit}, and no column has times; leave it out")
        extras = self._extras()
        means = np.ones(len(prompt), bool)
        for name, values in (("output", output), ("prompt", prompt)):
            means_failed = name == "output" and self.layout.name == "burstgpt"
            text = f"failed requests (0 {name} tokens)" if means_failed else f"rows with 0 {name} tokens"
            self._note_dropped(means & (values == 0), text)
            means &= values != 0
        if not means.any():
            raise self._nothing()
        order = np.flatnonzero(means)
        if time_s is not None:
            order = self._in_time_order(order, time_s)
        understood = Understood(self.layout.name, self.roles, unit, self.rows, self.unused) if self.say else None
        return Lengths(
            prompt[order].astype(np.int32),
            output[order].astype(np.int32),
            None if time_s is None else time_s[order] - (time_s[order[0]] if self.layout.starts_at_0 else 0.0),
            tuple(self.notes),
            extras if len(order) == len(prompt) and (np.diff(order) == 1).all() else extras.take(order),
            understood,
        )

    def _nothing(self) -> TraceError:
        return TraceError(
            f"{self.table.path}: has no usable rows ({'; '.join(self.notes) or 'none at all'}); get it again"
        )

    def _of(self, role: str, parse: Callable[[Any], Any]) -> Any:
        """A column's cells, of the rows that are requests; TraceError with the line of a bad one."""
        name = self.roles[role]
        if name not in self.columns:
            raise TraceError(f"{self.table.path}: {name} is missing in every row; {checks.COUNT_FIX}")
        column = self.columns[name]
        part = column if len(self.kept) == len(column) else column.take(self.kept)
        try:
            return parse(part)
        except Fault as fault:
            if fault.row is None:
                raise TraceError(f"{self.table.path}: {name} is {fault.value}; {fault.fix}") from None
            (line,) = self.table.line_of([int(self.kept[fault.row])]) if len(self.kept) else (1,)
            shown = f"is {fault.value!r}" if fault.value is not None else "is missing"
            raise TraceError(f"{self.table.path}, {self.table.place} {line}: {name} {shown}; {fault.fix}") from None

    def _extras(self) -> Extras:
        made: dict[str, Any] = {}
        parsers = {
            "class": ("qos_class", lambda column: cells.labels(column, "write the request's class")),
            "tenant": ("tenant", cells.optional_labels),
            "session": ("session", cells.optional_labels),
            "importance": ("important", cells.important),
            "hash_ids": ("hash_ids", cells.hash_ids),
        }
        for role, (field_name, parse) in parsers.items():
            if role in self.roles and self.roles[role] in self.columns:
                made[field_name] = self._of(role, parse)
                if made[field_name] is None:
                    self.notes.append(f"{self.roles[role]} are no lists of whole numbers, and not used")
        if "session" in made and self.layout.parent in self.columns:
            parents = self.columns[self.layout.parent].take(self.kept)
            made["session"] = cells.conversations(made["session"], parents)
        return Extras(**made)

    def _keep(self, mask: np.ndarray, why: str) -> None:
        self._note_dropped(~np.asarray(mask)[self.kept], why)
        self.kept = self.kept[np.asarray(mask)[self.kept]]

    def _note_dropped(self, dropped: np.ndarray, what: str) -> None:
        if count := int(np.count_nonzero(dropped)):
            self.notes.append(f"{count} {what} dropped{self._where(np.flatnonzero(dropped)) if self.say else ''}")

    def _where(self, rows: np.ndarray) -> str:
        lines = self.table.line_of(self.kept[rows[:_LINES_SHOWN]].tolist())
        more = ", ..." if len(rows) > _LINES_SHOWN else ""
        return f" ({self.table.place} {', '.join(map(str, lines))}{more})"

    def _in_time_order(self, order: np.ndarray, time_s: np.ndarray) -> np.ndarray:
        times = time_s[order]
        late = int(np.count_nonzero(np.diff(times) < 0))
        if late:
            self.notes.append(f"{late} rows came before their predecessor in time: sorted by timestamp")
            return order[np.argsort(times, kind="stable")]
        return order
