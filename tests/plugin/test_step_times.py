"""Measured step times: each step is the shape that was asked for, and takes what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.__main__ import main
from artifact.latency import engine_profile, step_summary
from artifact.latency.families import FAMILIES
from artifact.latency.profile import profile_of
from artifact.results import tables
from artifact.results.tables import provenance, read_table
from artifact.servers.command_line import MAX_MODEL_TOKENS
from artifact.servers.model_files import model_folder
from niyama import PAPER_CLASSES, load_card
from niyama.latency import Batch, LatencyModel, ModelCard, seconds
from niyama.latency.model import MONOTONE
from niyama.vllm.emulated.virtual import ASYNC_STOCK, SYNC_STOCK, EngineSettings, virtual_core
from niyama.vllm.profiling.step_grid import GRIDS, Grid
from niyama.vllm.profiling.step_times import StepTable, measure
from tests.helpers.emulated_runs import CARD, FAST, small_kv

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[2]
GRID = Grid(
    decodes=(0, 1, 5),
    context_tokens=(64, 200),
    prefill_tokens=(0, 1, 32, 500),
    prefix_tokens=(256, 1200),  # the longer one takes several steps
    chunk_tokens=(64,),
    repeats=2,
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


def measured(model_dir: Path, card: ModelCard = CARD, grid: Grid = GRID, **engine: Any) -> StepTable:
    """The grid, measured in virtual time; the engine must have given back all KV."""
    settings = {"scheduler_cls": SYNC_STOCK, "max_num_batched_tokens": grid.step_tokens, **engine}
    with virtual_core(card, EngineSettings(model_dir, **settings), PAPER_CLASSES, 2048) as (core, clock):
        pool = core.scheduler.kv_cache_manager.block_pool
        free, schedule = pool.get_num_free_blocks(), core.scheduler.schedule
        table = measure(core, grid, clock.now)
        assert pool.get_num_free_blocks() == free and not core.scheduler.has_unfinished_requests()
        assert core.scheduler.schedule == schedule
        assert core.scheduler.max_num_scheduled_tokens == settings["max_num_batched_tokens"]
    return table


@pytest.fixture(scope="module")
def table(model_dir: Path) -> StepTable:
    return measured(model_dir)


def batch_of(row: dict[str, Any]) -> Batch:
    return Batch(
        row["decodes"], row["decode_context_tokens"], row["prefill_tokens"], row["prefill_work"], row["prefix_tokens"]
    )


def test_in_virtual_time_every_step_takes_what_the_model_says(table: StepTable) -> None:
    model = CARD.build()
    for row in table.rows:
        assert row["seconds"] == pytest.approx(seconds(model, batch_of(row)), rel=1e-12, abs=1e-12), row
        assert row["schedule_s"] == 0.0
    assert (table.skipped, table.strayed) == (0, 0)


def test_every_shape_of_the_grid_is_there_as_often_as_asked(table: StepTable) -> None:
    rows = table.rows
    chunks = {(0, 0), (0, 1), (0, 32), (0, 500), (256, 64), (1200, 64)}
    expected = {(d, c, *chunk) for d in (1, 5) for c in (64, 200) for chunk in chunks}
    expected |= {(0, 0, *chunk) for chunk in chunks if chunk[1]}
    found = Counter((r["decodes"], r["context_tokens"], r["prefix_tokens"], r["prefill_tokens"]) for r in rows)
    assert found == dict.fromkeys(expected, GRID.repeats)
    assert Counter(r["repeat"] for r in rows) == {0: len(expected), 1: len(expected)}
    for r in rows:
        assert r["prefill_work"] == r["prefill_tokens"] * (r["prefix_tokens"] + r["prefill_tokens"] / 2)
        grown = r["decode_context_tokens"] - r["decodes"] * r["context_tokens"]
        most = r["decodes"] * 20 * GRID.repeats
        assert 0 <= grown <= most, "contexts drift by no more than the passes have steps"


def test_passes_differ_in_order_so_that_growing_contexts_are_no_effect_of_the_chunk(table: StepTable) -> None:
    rows = [r for r in table.rows if r["decodes"] == 5 and r["context_tokens"] == 200]
    orders = [[(r["prefix_tokens"], r["prefill_tokens"]) for r in rows if r["repeat"] == k] for k in (0, 1)]
    assert orders[0] != orders[1] and set(orders[0]) == set(orders[1])


def test_what_does_not_fit_is_skipped_and_counted(model_dir: Path, table: StepTable) -> None:
    everything = len(table.rows) // GRID.repeats
    small = measured(model_dir, small_kv(130), replace(GRID, repeats=1))
    large = {(5, 200, 1200)}  # 5 contexts of 200 and what they grow by, a prompt of 1,264: more than 2,080 tokens
    shapes = [{(r["decodes"], r["context_tokens"], r["prefix_tokens"]) for r in t.rows} for t in (table, small)]
    assert shapes[0] - shapes[1] == large
    assert (small.skipped, small.strayed, len(small.rows)) == (1, 0, everything - 1)
    few = measured(model_dir, grid=replace(GRID, repeats=1), max_num_seqs=5)  # no seat for a prompt beside five
    assert {r["decodes"] for r in few.rows} == {0, 1} and few.skipped == 2 * len(GRID.chunks)


def test_steps_in_another_shape_are_counted_and_never_recorded(model_dir: Path, monkeypatch) -> None:
    monkeypatch.setattr("niyama.vllm.profiling.step_times._Rig.fits", lambda *_: True)
    grid = replace(GRID, decodes=(1,), context_tokens=(64,), prefix_tokens=(), chunk_tokens=(), repeats=1)
    table = measured(model_dir, grid=grid, max_num_batched_tokens=300)  # 500 do not go in one step
    assert sorted(r["prefill_tokens"] for r in table.rows) == [0, 1, 32] and table.strayed == 1


def test_an_engine_that_works_ahead_is_refused(model_dir: Path) -> None:
    with pytest.raises(ValueError, match="several steps in flight; give it a synchronous scheduler"):
        measured(model_dir, scheduler_cls=ASYNC_STOCK)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"decodes": ()}, "decodes is empty"),
        ({"decodes": (1, 1)}, "decodes is (1, 1); give different numbers, none below 0"),
        ({"context_tokens": (0,)}, "context_tokens is (0,); give different numbers, none below 1"),
        ({"repeats": 0}, "repeats is 0; give at least 1"),
    ],
)
def test_a_grid_that_makes_no_step_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as raised:
        replace(GRID, **change)
    assert words in str(raised.value)


def test_the_full_grid_is_the_one_that_was_promised() -> None:
    for name in ("full", "exhaustive"):
        grids = GRIDS[name]
        assert {0, 1, 8, 32, 64, 128, 256} <= set(grids[0].decodes)
        assert set(grids[0].context_tokens) == {256, 1024, 2048, 4096}
        assert {0, 256, 1024, 4096} <= set(grids[0].prefill_tokens)
        assert {0, 32, 128} <= set(grids[-1].decodes) and set(range(256, 769, 16)) <= set(grids[-1].prefill_tokens)
        assert any(chunk.prefix_tokens == 8192 for chunk in grids[0].chunks)
        assert max(grid.step_tokens for grid in grids) == 4096 + 256


@pytest.mark.slow
def test_the_full_grid_takes_less_than_eight_minutes_of_the_modelled_a100(model_dir: Path) -> None:
    card, grids = load_card("a100-llama3-8b-linear"), GRIDS["full"]
    budget = max(grid.step_tokens for grid in grids)
    engine = EngineSettings(model_dir, SYNC_STOCK, max_num_batched_tokens=budget, max_num_seqs=257)
    with virtual_core(card, engine, PAPER_CLASSES, MAX_MODEL_TOKENS) as (core, clock):
        tables = [measure(core, grid, clock.now) for grid in grids]
        assert clock.now() <= 8 * 60
    rows = [row for table in tables for row in table.rows]
    assert sum(table.strayed for table in tables) == 0 and max(row["decodes"] for row in rows) == 256
    profile = profile_of(rows, {})
    fitted = LatencyModel(MONOTONE, FAMILIES["monotone"](profile.batches, profile.seconds))
    off = [seconds(fitted, profile.batch(i)) / own_s - 1 for i, own_s in enumerate(profile.seconds)]
    assert np.abs(off).mean() < 0.08, "a monotone model is that near to the authors' on these shapes"


@pytest.mark.nightly("artifact/latency", "scheduler/niyama/vllm")
def test_the_real_cpu_engine_takes_real_time(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.cpu_step_times", str(model_folder("tiny", tmp_path))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["idle"] and (found["skipped"], found["strayed"]) == (0, 0)
    shapes = Counter((r["decodes"], r["prefix_tokens"], r["prefill_tokens"]) for r in found["rows"])
    chunks = {(0, 0), (0, 1), (0, 100), (150, 40)}
    assert shapes == dict.fromkeys({(d, *c) for d in (0, 1, 4) for c in chunks if d or c[1]}, 2)
    for row in found["rows"]:
        assert isfinite(row["seconds"]) and 0.0 < row["schedule_s"] < row["seconds"]
    assert found["engine"]["dtype"] == "float32" and found["engine"]["kv_tokens"] > 1000


def test_the_emulated_command_finds_its_own_model_and_says_what_the_engine_adds(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    grid = Grid((0, 2), (64,), (0, 100), (), (), repeats=2)
    monkeypatch.setattr(engine_profile, "GRIDS", MappingProxyType({"short": (grid,)}))
    monkeypatch.setattr(engine_profile, "engine_environment", lambda backend: {})
    out = tmp_path / "new" / "times.parquet"
    assert main(["profile", "--backend", "emulated", "--grid", "short", "--out", str(out)]) == 0
    table = read_table(out)
    about, rows = provenance(table), table.to_pylist()
    assert len(rows) == 6 and all(r["seconds"] > 0 for r in rows)
    assert about["backend"] == "emulated" and about["engine"]["device"].startswith("none: emulates A100")
    assert about["model_shape"] == "llama3-8b" and "model" not in about["engine_arguments"]
    assert about["engine"]["vllm"] and about["engine"]["torch"] and about["engine"]["kv_tokens"] == 420_000
    extra_s = [r["seconds"] for r in rows] - step_summary.card_seconds("a100-llama3-8b-linear", rows)
    assert np.all(extra_s > 0.0), "a step cannot be over before its emulated time is"
    said = capsys.readouterr().out
    assert "6 steps of 3 shapes; 0 shapes skipped" in said and "beside the emulated step: " in said
    assert "a100-llama3-8b-roofline" in said and str(out) in said


def test_an_interrupted_profile_keeps_its_grids_and_goes_on_with_the_rest(tmp_path: Path, monkeypatch, capsys) -> None:
    grids = (Grid((0, 2), (64,), (0, 100), (), (), repeats=2), Grid((0,), (64,), (50, 60), (), (), repeats=1))
    monkeypatch.setattr(engine_profile, "GRIDS", MappingProxyType({"short": grids}))
    monkeypatch.setattr(engine_profile, "engine_environment", lambda backend: {})
    out = tmp_path / "times.parquet"
    command = ["profile", "--backend", "emulated", "--grid", "short", "--out", str(out)]
    written, write = [], tables.write_table

    def interrupted(path: Path, rows: Any, **about: Any) -> None:
        write(path, rows, **about)
        written.append(about["grids_done"])
        if len(written) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tables, "write_table", interrupted)
        assert main([*command, "--resume"]) == 130
        first = read_table(out).to_pylist()
        assert len(first) == 6 and provenance(read_table(out))["grids_done"] == 1
        assert main([*command, "--resume"]) == 0
        assert written == [1, 2]
    rows = read_table(out).to_pylist()
    assert rows[:6] == first and [r["prefill_tokens"] for r in rows[6:]] in ([50, 60], [60, 50])
    monkeypatch.setattr(engine_profile, "_measure", lambda *_: pytest.fail("measured again"))
    assert main([*command, "--resume"]) == 0 and "8 steps of 5 shapes" in capsys.readouterr().out


def test_the_fit_of_a_card_tells_scale_from_shape() -> None:
    measured_s = np.array([0.01, 0.02, 0.04])
    assert step_summary.card_fit(measured_s, 2 * measured_s) == (
        "off by 100.0% (mean absolute), bias +100.0%; times 0.500: off by 0.0%"
    )
    assert step_summary.card_fit(measured_s, np.array([0.008, 0.02, 0.048])).startswith(
        "off by 13.3% (mean absolute), bias +0.0%; times 1.000"
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--backend", "gpu"], "--backend is gpu, and nvidia-smi lists none here; use cpu or emulated"),
        (["--backend", "cpu", "--latency", FAST.name], "--latency is for --backend emulated; leave it out"),
        (["--backend", "emulated", "--latency", "a100"], "latency model 'a100' is unknown"),
        (["--backend", "cpu", "--out", "times.csv"], "give a file that ends in .parquet"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_loaded(
    tmp_path: Path, monkeypatch, capsys, arguments: list[str], words: str
) -> None:
    monkeypatch.setattr(engine_profile, "detect_backend", lambda: "emulated")
    monkeypatch.setattr(engine_profile, "model_folder", lambda *_: pytest.fail("went on"))
    assert main(["profile", "--out", str(tmp_path / "x.parquet"), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
