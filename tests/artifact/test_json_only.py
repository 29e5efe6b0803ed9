"""`--json` prints JSON and nothing else, in a process of its own, whatever the engine logs."""

import json
import os
import subprocess
import sys

import pytest

from artifact.__main__ import main
from artifact.commands.table import parser
from artifact.latency.profile import kernel_rows
from artifact.latency.published import NAMES, facts
from artifact.results.tables import write_table

SMALL = ["--trace", "azure-code-2023-synth", "--requests", "60"]
POINT = [*SMALL, "--system", "niyama"]
ENGINE = {
    "bench": ["--requests", "50", "--repeats", "1", "--dynosim", "off", "--http", "0"],
    "fidelity": [*SMALL, "--capacity", "5", "--loads", "1", "--scheduler", "sync"],
}
#: Real servers: minutes. `test_server_sweep` and `make servers` run them.
SERVERS = {"crosscheck"}
#: There it is the name of a file.
FILES = {"verify"}


#: `bench` of short queues on one trace, without the first runs of new processes, which compile (`test_bench`).
BENCH = """
import sys
import numpy
from artifact.__main__ import main
from benchmarks import bench, startup
startup._first_run = lambda folder: numpy.ones(3)
bench.__kwdefaults__ |= {"queued": (10,), "waiting": (0,), "loads_qps": {"azure-code-2023-synth": 3.0}}
sys.exit(main())
"""


def printed(tmp_path, *arguments):
    start = ["-c", BENCH] if arguments[0] == "bench" else ["-m", "artifact"]
    command = [sys.executable, *start, *arguments, "--json"]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]  # 1: an answer too, such as out of tolerance
    return json.loads(done.stdout)


def arguments(command, tmp_path):
    if command == "simulate":
        return [*POINT, "--load", "3"]
    if command == "cards":
        return []
    if command == "capacity":
        return [*POINT, "--seeds", "1", "--step", "1"]
    if command == "plan":
        return ["--trace", "azure-code-2023-synth", "--qps", "2", "--requests", "100", "--seeds", "1", "--jobs", "1"]
    if command == "replay":
        log = tmp_path / "log.jsonl"
        assert main(["simulate", *POINT, "--load", "3", "--decision-log", str(log)]) == 0
        return [str(log)]
    if command == "fit":
        shape = next(iter(NAMES.values()))
        profile = tmp_path / "profile.parquet"
        write_table(profile, kernel_rows(shape), backend="kernels", card=facts(shape))
        return [str(profile), "--kinds", "monotone"]
    return ENGINE[command]


@pytest.mark.parametrize("command", ["simulate", "capacity", "replay", "fit", "cards", "plan"])
def test_json_and_nothing_else(command, tmp_path):
    assert printed(tmp_path, command, *arguments(command, tmp_path))


@pytest.mark.engine
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("bench", marks=pytest.mark.nightly("benchmarks")),
        pytest.param("fidelity", marks=pytest.mark.nightly("artifact/engine", "artifact/commands")),
    ],
)
def test_json_and_nothing_else_beside_an_engine(command, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    assert printed(tmp_path, command, *arguments(command, tmp_path))


def test_every_command_that_has_json_is_tried():
    parsers = next(action for action in parser()._actions if isinstance(action.choices, dict)).choices
    have = {name for name, parser in parsers.items() if any("--json" in a.option_strings for a in parser._actions)}
    assert have == {"simulate", "capacity", "replay", "fit", "cards", "plan", *ENGINE, *SERVERS, *FILES}
