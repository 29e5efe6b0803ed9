"""The made-up tables as fixtures, and as Parquet files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from artifact.report.draw import render
from artifact.results.manifest import write_manifest
from artifact.results.tables import write_table
from figures import style
from tests.helpers.figure_tables import CLASSES, CODE, CODE_TWIN, capacity_rows, cluster_rows, named_rows, summary_rows
from tests.helpers.panel_tables import panel_rows
from tests.helpers.scenario_tables import scenario_rows
from tests.helpers.whole_tables import whole


def made_up() -> dict[str, list[dict]]:
    """Rows of every table that a figure reads."""
    return {
        "capacity": capacity_rows(),
        "summary": summary_rows(),
        "cluster": cluster_rows(),
        **named_rows(),
        **panel_rows(),
        **scenario_rows(),
    }


rows = pytest.fixture(made_up)


@pytest.fixture(scope="session")
def made_frames() -> dict[str, pd.DataFrame]:
    """The tables as figures get them: only to be copied."""
    return {name: pd.DataFrame(table) for name, table in made_up().items()}


@pytest.fixture
def frames(made_frames) -> dict[str, pd.DataFrame]:
    """The tables as figures get them."""
    found = {name: frame.copy() for name, frame in made_frames.items()}
    for frame in found.values():
        frame.attrs["classes"] = CLASSES
    return found


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A results folder with the tables as the pipeline writes them: only to be copied, and drawn into by `draw`."""
    folder = tmp_path_factory.mktemp("made")
    traces = {
        CODE: {"trace": CODE, "source": "local", "rows": 8819, "citation": "https://example.org/trace"},
        CODE_TWIN: {"trace": CODE_TWIN, "source": "synthetic", "rows": 50000, "notes": ["fidelity good"]},
    }
    for name, table in made_up().items():
        write_table(folder / "tables" / f"{name}.parquet", whole(name, table), backend="sim", traces=traces)
    write_manifest(folder, folder / "tables" / "manifest.json", (folder / "tables").glob("*.parquet"))
    return folder


@pytest.fixture
def results(made, tmp_path) -> Path:
    """A copy of the tables, to be changed."""
    shutil.copytree(made / "tables", tmp_path / "tables")
    return tmp_path


@pytest.fixture(scope="session")
def drawn() -> dict[str, list[Path]]:
    """What each figure that was asked for is drawn in."""
    return {}


@pytest.fixture
def draw(made, drawn, results, monkeypatch) -> Callable[..., list[Path]]:
    """`draw(*names)`: figures of the tables as they are made, their files; drawn once, coarsely, and then copied."""
    monkeypatch.setattr(style, "DPI", 60)

    def copied(*names: str) -> list[Path]:
        (results / "figures").mkdir(exist_ok=True)
        for name in names:
            drawn[name] = drawn.get(name) or render(name, made)
        return [Path(shutil.copy2(path, results / "figures")) for name in names for path in drawn[name]]

    return copied
