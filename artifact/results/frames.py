"""Results tables as DataFrames, and DataFrames as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import pandas as pd

from artifact.results.tables import provenance, read_table


class _Shared(dict[str, Any]):
    """Part of the provenance. Pandas copies `attrs` deeply for every column and selection; nothing changes this."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def load_tables(names: Iterable[str], folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of `folder` as DataFrames whose `attrs` hold their provenance. ResultError when one is missing."""
    return {name: load_table(folder / f"{name}.parquet") for name in dict.fromkeys(names)}


def load_table(path: Path) -> pd.DataFrame:
    """The table at `path`, its provenance in `attrs`. ResultError when it is missing."""
    table = read_table(path)
    frame = table.to_pandas()
    frame.attrs = {name: _Shared(part) if isinstance(part, dict) else part for name, part in provenance(table).items()}
    return frame


def markdown(frame: pd.DataFrame) -> str:
    """A table of text as GitHub's Markdown."""
    rows = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)
