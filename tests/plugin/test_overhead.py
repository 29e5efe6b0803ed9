"""The benchmark of the plug-in's cost measures what it says, in numbers that make sense; no time is a target here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.__main__ import main
from artifact.engine.fidelity import BACKEND
from artifact.results.tables import provenance, read_table
from artifact.servers.model_files import model_folder
from benchmarks.printing import Console, _print_engine
from benchmarks.vllm_steps import engine, steps
from niyama.vllm.profiling import overhead

pytestmark = pytest.mark.engine


def test_every_number_is_there_and_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.vllm_steps.STEPS", 5)
    found = json.loads(json.dumps(engine(20, 1, tmp_path, (0, 30))))
    assert found["skipped"] is None and [row["waiting"] for row in found["steps"]] == [0, 30]
    for row in found["steps"]:
        assert all(math.isfinite(value) for value in row.values())
        assert row["stock_schedule_us"] > 0 and row["niyama_schedule_us"] > 0
    _print_engine(Console(width=160), found)
    printed = capsys.readouterr().out
    assert "azure-conv-2023" in printed and "<= 1.10" in printed


def test_the_command_writes_a_row_per_queue_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.vllm_steps.STEPS", 5)
    monkeypatch.setattr("benchmarks.vllm_steps.steps", lambda n, folder: steps(n, folder, (0, 30)))
    out = tmp_path / "overhead.parquet"
    assert main(["overhead", "--repeats", "1", "--out", str(out)]) == 0
    table = read_table(out)
    assert table["waiting"].to_pylist() == [0, 30] and "30 waiting: schedule()" in capsys.readouterr().out
    assert provenance(table)["backend"] == BACKEND and "vllm" in provenance(table)["vllm"]


def test_without_deadlines_nothing_is_slower(tmp_path: Path) -> None:
    """Virtual time is exact: the same chunks in the same order give the same end, to the percent of the issue."""
    found = engine(150, 1, tmp_path, ())
    assert [row["trace"] for row in found["throughput"]] == ["azure-code-2023", "azure-conv-2023"]
    assert all(row["ratio"] >= 0.99 for row in found["throughput"]), found["throughput"]


def test_a_queue_that_runs_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "WARM_UP_STEPS", 0)
    with pytest.raises(RuntimeError, match="requests run, not 64"):
        overhead.scheduling_us(model_folder("llama3-8b", tmp_path), overhead.ASYNC_STOCK, 0, 1)
