"""The sweep in virtual time: the same bytes every time, also on a busy machine, and vLLM's queues as asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.__main__ import main
from artifact.results.tables import provenance, read_table

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BUSY_LOOPS = 2 * (os.cpu_count() or 1)
BOTH = "import json, sys; from artifact.__main__ import main; sys.exit(any([main(a) for a in json.loads(sys.argv[1])]))"
CONFIG = """
trace: azure-code-2023-synth
latency: a100-llama3-8b-linear
systems: [vllm-fcfs, vllm-priority, silo, niyama]
classes:
  - {name: Q1, share: 0.5, ttft_s: 1.0, tbt_s: 0.05}
  - {name: Q2, share: 0.5, ttlt_s: 10.0}
virtual_time: {loads_qps_per_gpu: [4, 14], seconds: 6, seeds: 1}
forms: {}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "servers.yaml").write_text(CONFIG)
    main(["trace", "azure-code-2023-synth", "--out", str(folder / "trace.json")])
    return folder


def arguments(files: Path, system: str, out: Path) -> list[str]:
    options = {"config": files / "servers.yaml", "system": system, "described": files / "trace.json", "out": out}
    return ["engine-sweep", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]


def rows_of(files: Path, system: str) -> dict[tuple[str, float, str], dict]:
    """The table's rows by backend, load and group."""
    out = files / f"{system}.parquet"
    if not out.exists():
        assert main(arguments(files, system, out)) == 0
    return {(row["backend"], row["load_qps"], row["group"]): row for row in read_table(out).to_pylist()}


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.nightly("scheduler/niyama", "artifact/engine")
@pytest.mark.parametrize("loops", [0, BUSY_LOOPS])
def test_another_hash_seed_gives_the_same_bytes_also_on_a_busy_machine(files: Path, loops: int) -> None:
    """Both systems in one new process. Without the loops the other tests keep the machine busy."""
    again = []
    for system in ("silo", "niyama"):
        rows_of(files, system)
        again.append(arguments(files, system, files / f"{system}-again.parquet"))
    with busy_loops(loops):
        command = [sys.executable, "-c", BOTH, json.dumps(again)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    for system in ("silo", "niyama"):
        assert (files / f"{system}-again.parquet").read_bytes() == (files / f"{system}.parquet").read_bytes()


def test_the_table_says_what_ran(files: Path) -> None:
    rows = rows_of(files, "silo")
    assert {backend for backend, *_ in rows} == {"vllm-virtual", "sim-overlapped"}
    assert {load for _, load, _ in rows} == {8.0, 28.0}, "a silo of two gets twice the load"
    about = provenance(read_table(files / "silo.parquet"))
    assert about["backend"] == "vllm-virtual" and about["vllm"].startswith("vllm") and about["seconds"] == 6
    assert about["latency_model"]["name"] == "a100-llama3-8b-linear" and about["trace"]["trace"].endswith("-synth")


@pytest.mark.parametrize("load_qps", [4.0, 14.0])
def test_niyama_in_the_engine_is_the_simulators(files: Path, load_qps: float) -> None:
    rows = rows_of(files, "niyama")
    for group in ("all", "Q1", "Q2"):
        engine, simulated = (rows[backend, load_qps, group] for backend in ("vllm-virtual", "sim-overlapped"))
        told = set(engine) - {"backend", "un_relegations"}
        assert {name: engine[name] for name in told} == pytest.approx({name: simulated[name] for name in told})


def test_each_system_has_its_own_queue(files: Path) -> None:
    """Above capacity: a priority queue puts the interactive class first, and Niyama violates the fewest."""
    loads = {"vllm-fcfs": 14.0, "vllm-priority": 14.0, "niyama": 14.0, "silo": 28.0}
    rows = {name: rows_of(files, name) for name in loads}
    interactive = {name: rows[name]["vllm-virtual", load, "Q1"] for name, load in loads.items()}
    assert interactive["vllm-priority"]["ttft_p95_s"] < 0.7 * interactive["vllm-fcfs"]["ttft_p95_s"]
    violated = {name: rows[name]["vllm-virtual", load, "all"]["violation_rate"] for name, load in loads.items()}
    assert min(violated, key=violated.get) == "niyama" and len(set(violated.values())) == 4, violated
