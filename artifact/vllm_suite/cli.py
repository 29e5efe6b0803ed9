"""`python -m artifact vllm-suite`: run vLLM's own scheduler tests, say which pass, and whether all is as expected."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from artifact.commands.table import Verb
from artifact.vllm_suite import expected
from artifact.vllm_suite.expected import Outcome
from artifact.vllm_suite.hub import stand_ins
from artifact.vllm_suite.source import TESTS, installed_version, unpacked

#: What is run -> the run of vLLM's own classes that it is held against.
BASELINES = {"niyama": "stock", "niyama-async": "stock-async"}
CACHE = Path("data/vllm-suite")
REPOSITORY = Path(__file__).resolve().parents[2]
_RUN_S = 1800


def run_suite(options: argparse.Namespace) -> int:
    """0 if every test came out as expected, else 1."""
    release = installed_version()
    folder = unpacked(release, options.cache.resolve(), options.sdist)
    ours = [name for name in BASELINES if name in options.classes]
    baselines = [] if options.without_stock else [BASELINES[name] for name in ours]
    came = _all_outcomes(folder, baselines + ([] if options.stock else ours), options.jobs)
    lines = _stock_problems(came.get("stock", {}))
    if not options.stock:
        asked = {name: _asked(came[name], came.get(BASELINES[name])) for name in ours}
        reasons = expected.load(release)
        if options.update:
            for name in ours:
                reasons = expected.updated(reasons, name, asked[name])
            expected.save(release, reasons)
            print(f"wrote {expected.FILE}")
        print(table(reasons, asked))
        lines += [f"{name}: {line}" for name in ours for line in expected.problems(reasons, name, asked[name])]
    print("\n".join(lines) or "every test came out as expected")
    return int(bool(lines))


def _all_outcomes(folder: Path, runs: Sequence[str], jobs: int) -> dict[str, dict[str, Outcome]]:
    """What came out of each run, some of them at a time, with a line for each when it has ended."""
    print(f"vLLM's own scheduler tests, in runs called {', '.join(runs)}: about a minute each", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(runs, pool.map(lambda name: outcomes(folder, name), runs), strict=True))


def _asked(came: Mapping[str, Outcome], baseline: Mapping[str, Outcome] | None) -> dict[str, Outcome]:
    """The outcomes of the tests that the baseline passes; of all tests without one."""
    tests = came if baseline is None else _passing(baseline)
    return {test: came.get(test, Outcome("failed", "was not collected")) for test in tests}


def outcomes(folder: Path, schedulers: str) -> dict[str, Outcome]:
    """Run the tests with these schedulers, each run in a process of its own. Raises ValueError if it broke down."""
    with tempfile.TemporaryDirectory() as scratch:
        found, settings = Path(scratch, "outcomes.json"), Path(scratch, "pytest.ini")
        settings.write_text("[pytest]\n")  # else this repository's settings would be found
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout"]
        command += ["-c", str(settings), "--rootdir", str(folder), "--confcutdir", str(folder), "--tb=no"]
        command += ["-p", "artifact.vllm_suite.inside", "--schedulers", schedulers, "--outcomes", str(found)]
        command += [f"tests/v1/{name}" for name in TESTS]
        begun_s = time.monotonic()
        done = subprocess.run(
            command, cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=_RUN_S
        )
        if done.returncode not in (0, 1) or not found.is_file():
            raise ValueError(f"pytest broke down in the {schedulers} run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        came = {name: Outcome(**about) for name, about in json.loads(found.read_text(encoding="utf-8")).items()}
        print(_summary(schedulers, came, time.monotonic() - begun_s), flush=True)
        return came


def _environment(folder: Path) -> dict[str, str]:
    """This process's, without what would configure the plug-in, and with stand-ins for models."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIYAMA_", "PYTEST_"))}
    path = [str(REPOSITORY / "scheduler"), str(REPOSITORY)]
    settings = {"PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "0", "VLLM_NO_USAGE_STATS": "1"}
    return kept | settings | stand_ins(folder.parent / "models")


def _passing(came: Mapping[str, Outcome]) -> list[str]:
    return [test for test, outcome in came.items() if outcome.outcome == "passed"]


def _summary(name: str, came: Mapping[str, Outcome], took_s: float) -> str:
    counts = Counter(outcome.outcome for outcome in came.values())
    parts = ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
    return f"{name:14s}{len(came)} tests in {took_s:.0f} s: {parts}"


def _stock_problems(came: Mapping[str, Outcome]) -> list[str]:
    """A line for each test that vLLM's own classes do not pass: this machine or a stand-in is at fault."""
    wrong = {test: outcome for test, outcome in came.items() if outcome.outcome not in ("passed", "skipped")}
    return [f"stock: {test} {o.outcome} with vLLM's own classes: {o.text}" for test, o in wrong.items()]


def table(reasons: Sequence[expected.Reason], asked: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Tests by reason, a column for each run of ours."""
    rows: list[tuple[str, list[int], str]] = [("asked of ours", [len(came) for came in asked.values()], "")]
    rows.append(("passed", [len(_passing(came)) for came in asked.values()], ""))
    for reason in reasons:
        counts = [
            sum(expected.reason_of(reasons, name, test) is reason for test in came) for name, came in asked.items()
        ]
        rows.append((f"  {reason.name}", counts, f"{reason.outcome}: {reason.why}"))
    lines = [f"{'':36s}" + "".join(f"{name:>14s}" for name in asked)]
    lines += [f"{head:36s}" + "".join(f"{n:14d}" for n in counts) + f"   {why}".rstrip() for head, counts, why in rows]
    return "\n".join(lines)


def add_commands(verb: Verb) -> None:
    """Add the command to the command line; `verb` makes one."""
    suite = verb("vllm-suite", run_suite)
    suite.add_argument(
        "--classes",
        nargs="+",
        choices=BASELINES,
        default=list(BASELINES),
        help="niyama: ours for vLLM's, like for like; niyama-async: the async one in every test (default both)",
    )
    suite.add_argument("--stock", action="store_true", help="only vLLM's own classes")
    suite.add_argument("--without-stock", action="store_true", help="take it that vLLM's own classes pass every test")
    suite.add_argument("--update", action="store_true", help="write what came out into expected.yaml")
    suite.add_argument("--sdist", type=Path, help="vLLM's source distribution, if pip cannot download it")
    suite.add_argument("--cache", type=Path, default=CACHE, help=f"folder of the unpacked tests (default {CACHE})")
    suite.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
