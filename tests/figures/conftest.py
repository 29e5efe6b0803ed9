"""The made-up tables as fixtures, and as Parquet files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from artifact.results.manifest import write_manifest
from artifact.results.tables import write_table
from tests.helpers.figure_tables import CLASSES, CODE, CODE_TWIN, capacity_rows, cluster_rows, named_rows, summary_rows
from tests.helpers.panel_tables import panel_rows
from tests.helpers.scenario_tables import scenario_rows
from tests.helpers.whole_tables import whole


@pytest.fixture
def rows() -> dict[str, list[dict]]:
    """Rows of every table that a figure reads."""
    return {
        "capacity": capacity_rows(),
        "summary": summary_rows(),
        "cluster": cluster_rows(),
        **named_rows(),
        **panel_rows(),
        **scenario_rows(),
    }


@pytest.fixture
def frames(rows) -> dict[str, pd.DataFrame]:
    """The tables as figures get them."""
    found = {name: pd.DataFrame(table) for name, table in rows.items()}
    for frame in found.values():
        frame.attrs["classes"] = CLASSES
    return found


@pytest.fixture
def results(rows, tmp_path) -> Path:
    """A results folder with the tables as the pipeline writes them."""
    traces = {
        CODE: {"trace": CODE, "source": "local", "rows": 8819, "citation": "https://example.org/trace"},
        CODE_TWIN: {"trace": CODE_TWIN, "source": "synthetic", "rows": 50000, "notes": ["fidelity good"]},
    }
    for name, table in rows.items():
        write_table(tmp_path / "tables" / f"{name}.parquet", whole(name, table), backend="sim", traces=traces)
    folder = tmp_path / "tables"
    write_manifest(tmp_path, folder / "manifest.json", folder.glob("*.parquet"))
    return tmp_path
