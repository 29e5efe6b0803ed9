"""What every reader answers, apart from the readers: who reads no file needs no pyarrow, a tenth of a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from traces.catalog import Entry
from traces.errors import TraceError


@dataclass(frozen=True, eq=False)
class Labels:
    """A name for each row."""

    codes: np.ndarray  # int32[n], index into names
    names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> Labels:
        """Of these rows alone, with the same names."""
        return Labels(self.codes[rows], self.names)

    def by_row(self) -> np.ndarray:
        """object[n]: the names."""
        return np.array(self.names, object)[self.codes]


@dataclass(frozen=True, eq=False)
class HashIds:
    """The blocks of each row's prompt, as Mooncake hashes them: equal numbers are equal beginnings."""

    ids: np.ndarray  # int64, of all rows in a line
    ends: np.ndarray  # int64[n + 1]: row i has ids[ends[i]:ends[i + 1]]

    def take(self, rows: np.ndarray) -> HashIds:
        """Of these rows alone."""
        counts = np.diff(self.ends)[rows]
        ends = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        places = np.repeat(self.ends[rows] - ends[:-1], counts) + np.arange(ends[-1])
        return HashIds(self.ids[places], ends)


@dataclass(frozen=True, eq=False)
class Extras:
    """What a trace may know of its requests in addition to times and lengths; None: it does not."""

    qos_class: Labels | None = None
    tenant: Labels | None = None
    session: Labels | None = None
    important: np.ndarray | None = None  # bool[n]
    hash_ids: HashIds | None = None

    def take(self, rows: np.ndarray) -> Extras:
        """Of these rows alone."""
        qos_class, tenant, session = (
            None if one is None else one.take(rows) for one in (self.qos_class, self.tenant, self.session)
        )
        important = None if self.important is None else self.important[rows]
        ids = None if self.hash_ids is None else self.hash_ids.take(rows)
        return Extras(qos_class, tenant, session, important, ids)


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class Reading:
    """What a user says of a file that it does not say itself."""

    columns: Mapping[str, str] = field(default_factory=dict)  # role -> column, as in layouts.ROLES
    time_unit: str | None = None  # of numeric times: s, ms, us or ns
    tokenizer: Path | None = None  # folder that counts the tokens of texts

    def __bool__(self) -> bool:
        return bool(self.columns) or self.time_unit is not None or self.tokenizer is not None


@dataclass(frozen=True)
class Understood:
    """What a file was taken for."""

    layout: str
    columns: Mapping[str, str]  # role -> column
    time: str  # unit of the times, and how it is known; empty without times
    rows: int  # of the file, those dropped included
    unused: tuple[str, ...]  # columns that nobody asked for

    def about(self) -> Mapping[str, Any]:
        """As a table's provenance has it."""
        return {"layout": self.layout, "columns": dict(self.columns), "time": self.time, "rows": self.rows}

    def __str__(self) -> str:
        said = {role: f"{role} = {name}" for role, name in self.columns.items()}
        if self.time:
            said["time"] += f" ({self.time})"
        return f"layout {self.layout}: {', '.join(said.values())}"


@dataclass(frozen=True, eq=False)
class Lengths:
    """Rows of a trace in arrival order. Arrays are read-only and of one length n >= 1."""

    prompt_tokens: np.ndarray  # int32[n], >= 1
    output_tokens: np.ndarray  # int32[n], >= 1
    arrival_s: np.ndarray | None  # float64[n], >= 0, sorted; None if the trace has no times
    notes: tuple[str, ...] = ()  # what the reader changed: rows dropped, rows sorted
    extras: Extras = NO_EXTRAS
    understood: Understood | None = None  # of a user's file

    def __post_init__(self) -> None:
        for array in (self.prompt_tokens, self.output_tokens, self.arrival_s):
            if array is not None:
                array.setflags(write=False)


def require_lengths(entry: Entry) -> None:
    """Raise TraceError, with what to do instead, if the rows of `entry` are not token lengths."""
    if entry.reader == "azure-hourly":
        raise TraceError(f"{entry.name} holds hourly counts, not lengths; use the hour-of-week arrivals")
    if entry.reader == "sharegpt-text":
        raise TraceError(f"{entry.name} is text and needs a tokenizer; use traces.sharegpt_text.sharegpt_trace")
