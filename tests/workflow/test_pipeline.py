"""The whole pipeline, end to end, with the smoke configuration: traces to report, and again from the middle."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.claims.model import load_claims
from artifact.config import ConfigError
from artifact.experiments.config import load_experiments
from artifact.report.draw import figure_module
from artifact.results.manifest import problems, read_manifests
from artifact.results.tables import provenance, read_table
from artifact.servers.config import load_server_experiment
from figures import PAPER_FIGURES
from tests.helpers.snakemake_forks import ROOT, run_snakemake
from tests.helpers.waiting import wait_for

SERVERS = ROOT / "workflows" / "config" / "servers.yaml"
OTHER_KINDS = {"servers.yaml", "gpu.yaml", "cpu.yaml", "steady_engine.yaml", "engine.yaml"}  # servers, an operator
CONFIGS = sorted(p for p in (ROOT / "workflows" / "config").glob("*.yaml") if p.name not in OTHER_KINDS)
TABLES = ("capacity", "summary", "cluster")


def arguments_of(results: Path, *targets: str, experiments: str | Path = "workflows/config/smoke.yaml") -> list[str]:
    """Of a run of the pipeline into this folder."""
    settings = [f"experiments={experiments}", f"results={results}", "servers=none"]
    return ["--cores", "2", "--nolock", *targets, "--config", *settings]


def started(arguments: list[str], **pipes: object) -> subprocess.Popen:
    """Snakemake in a process of its own."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen([sys.executable, "-m", "snakemake", *arguments], cwd=ROOT, env=environment, **pipes)


def snakemake(results: Path, *targets: str, **experiments: str | Path):
    return run_snakemake(*arguments_of(results, *targets, **experiments))


def verify(results: Path):
    command = [sys.executable, "-m", "artifact", "verify", "--results", str(results)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def digests(results: Path, *patterns: str) -> dict[str, str]:
    files = sorted(path for pattern in patterns for path in results.rglob(pattern))
    return {str(f.relative_to(results)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def killed_and_restarted(results: Path, config: Path, tables: tuple[str, ...]) -> None:
    """Make these tables, killed once on the way; what was finished must not be made again."""
    targets = [str(results / "tables" / f"{name}.parquet") for name in tables]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = started(arguments_of(results, *targets, experiments=config), **pipes, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or list(results.rglob("*.parquet")))
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not all(map(os.path.exists, targets))
    there = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    again = snakemake(results, *targets, experiments=config)
    assert again.returncode == 0, again.stderr[-3000:]
    made_again = [path for path, written in there.items() if path.stat().st_mtime_ns != written]
    assert len(made_again) <= 2, "more was made again than the two jobs that were running"
    assert not list(results.rglob(".*.part"))  # half a table that the kill left is gone


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The default target's results; who changes them puts them right again."""
    folder = tmp_path_factory.mktemp("default") / "results"
    first = started(arguments_of(folder), stderr=subprocess.PIPE, text=True)
    said = first.communicate()[1]
    assert first.returncode == 0, said[-3000:]
    return folder


def test_pipeline_runs_resumes_and_repeats_byte_for_byte(results):
    report = (results / "report.html").read_text()
    assert "niyama" in report and "a100-llama3-8b-roofline" in report
    before = digests(results / "tables", "*") | digests(results / "figures", "*.png")
    assert len(before) > len(TABLES)
    assert set(read_manifests(results)) == set(TABLES) and not problems(results)
    assert ">Claims<" in report and "SKIPPED" in report and "no rows with trace azure-code-2024-week" in report

    capacity = read_table(results / "tables" / "capacity.parquet")
    assert provenance(capacity)["backend"] == "sim"
    assert {row["run_length"] for row in capacity.to_pylist()} == {"paper", "long"}
    summary = read_table(results / "tables" / "summary.parquet").to_pylist()
    assert {row["load_qps"] for row in summary} == {2.0, 4.0, 6.0}

    assert "Nothing to be done" in (again := snakemake(results)).stderr + again.stdout
    next((results / "searches" / "capacity").rglob("*.parquet")).unlink()
    (results / "report.html").unlink()
    for name in TABLES:
        (results / "tables" / f"{name}.parquet").unlink()
    assert (broken := verify(results)).returncode == 2 and "capacity.parquet: is missing" in broken.stdout
    kept = next((results / "grids" / "summary").rglob("*.parquet")).stat().st_mtime_ns
    second = snakemake(results)
    assert second.returncode == 0, second.stderr[-3000:]
    assert digests(results / "tables", "*") | digests(results / "figures", "*.png") == before
    assert (
        next((results / "grids" / "summary").rglob("*.parquet")).stat().st_mtime_ns == kept
    )  # what was finished stayed


def test_paper_makes_all_that_the_default_target_does(tmp_path):
    def made(*target: str) -> set[str]:
        done = snakemake(tmp_path / "results", "--dry-run", *target)
        outputs = re.findall(r"^    output: (.+)", done.stdout + done.stderr, re.MULTILINE)
        return {file for line in outputs for file in line.split(", ") if "report" not in file}

    default = made()
    assert len(default) > len(TABLES) and default < made("paper")


@pytest.mark.nightly("Snakefile", "workflows", "artifact/experiments")
def test_named_experiments_are_jobs_and_tables_of_their_own(results, tmp_path):
    """Beside what the default target made; a lost part is run again alone, to the same bytes."""
    results, config = shutil.copytree(results, tmp_path / "results"), tmp_path / "c.yaml"
    text = (ROOT / "workflows/config/smoke.yaml").read_text()
    config.write_text(text)
    first = snakemake(results, "paper", experiments=str(config))
    assert first.returncode == 0, first.stderr[-3000:]
    assert "Fig 7: goodput" in (results / "paper.html").read_text()
    grid, search = (read_table(results / "tables" / f"{name}.parquet") for name in ("steps", "bursts"))
    assert {(r["variant"], r["load_qps"], r["seed"]) for r in grid.to_pylist()} == {
        (label, load, seed) for label in ("alpha 0", "alpha 8") for load in (4.0, 6.0) for seed in (0, 1)
    }
    assert {(r["variant"], r["system"], r["latency"]) for r in search.to_pylist()} == {
        (label, system, latency)
        for label in ("Poisson", "gamma, cv 3")
        for system in ("sarathi-edf", "niyama")
        for latency in ("a100-llama3-8b-linear", "a100-llama3-8b-roofline")
    }
    assert provenance(search)["traces"]["azure-code-2023"]["rows"] > 0
    assert set(load_experiments(config).tables) == set(read_manifests(results))
    # too short for most claims; those on latency models alone are decided
    statuses = {row["status"] for row in json.loads((results / "claims.json").read_text())["claims"]}
    assert "SKIPPED" in statuses <= {"PASS", "FAIL", "XFAIL", "XPASS", "SKIPPED"}

    # a grid and a search; `test_killed` has the default target's tables and its manifest
    killed_and_restarted(tmp_path / "killed", config, ("steps", "bursts"))
    assert (made := digests(tmp_path / "killed", "*.parquet")).items() <= digests(results, "*.parquet").items()
    assert {"tables/steps.parquet", "tables/bursts.parquet"} < made.keys()

    lost, kept = sorted((results / "searches" / "bursts").rglob("*.parquet"))
    before, stayed = (results / "tables" / "bursts.parquet").read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    (results / "tables" / "bursts.parquet").unlink()
    config.write_text(text.replace('"alpha 8": {}', '"alpha 8": {}\n      "alpha 9": {policy: {alpha_high: 0.009}}'))
    again = snakemake(results, "paper", experiments=str(config))
    assert again.returncode == 0, again.stderr[-3000:]
    assert (results / "tables" / "bursts.parquet").read_bytes() == before
    assert kept.stat().st_mtime_ns == stayed  # another entry's change does not concern it
    assert "alpha 9" in {r["variant"] for r in read_table(results / "tables" / "steps.parquet").to_pylist()}


OWN = """
latencies: [a100-llama3-8b-linear]
cluster: {traces: [TRACE], load_qps: 12, requests: 500, seeds: 2, shared: [niyama], fleets: {}, run: &own {classes: [
  {name: chat, ttft_s: 4.0, tbt_s: 0.08}, {name: nightly, ttlt_s: 300.0}]}}
grids:
  summary: {traces: [TRACE], systems: [sarathi-fcfs, niyama], loads_qps: [3, 6], requests: 500, seeds: 2,
    label_column: null, run: *own}
searches:
  capacity: {systems: [sarathi-fcfs, niyama], requests: {TRACE: 500}, seeds: 2, step_qps: 0.5,
    label_column: run_length, variants: {paper: {}}, run: *own}
"""


@pytest.mark.nightly("Snakefile", "workflows", "artifact/experiments", "artifact/runs", "traces")
def test_a_trace_of_ones_own_with_its_classes_goes_to_a_report(tmp_path):
    trace, config = tmp_path / "mine.csv", tmp_path / "own.yaml"
    rows = [f"{400 + 37 * (i % 50)},{5 + i % 60},{('chat', 'nightly')[i % 3 == 0]}" for i in range(900)]
    trace.write_text("\n".join(["prompt_tokens,output_tokens,qos_class", *rows]) + "\n")
    config.write_text(OWN.replace("TRACE", str(trace)))
    done = snakemake(tmp_path / "results", experiments=config)
    assert done.returncode == 0, done.stderr[-2000:]
    report = (tmp_path / "results" / "report.html").read_text()
    assert "not complete" not in report and "mine.csv@" in report and "nightly p99 TTLT (s)" in report
    gpus = (tmp_path / "results" / "figures" / "fig1_table4.md").read_text()
    assert "chat p99 TTFT (s)" in gpus and "Q1" not in gpus


def test_every_claim_has_a_target():
    """What `verify` tells people to run is something that the workflow makes."""
    sources = load_claims().tables.values()
    of_make = {source.target for source in sources if source.target.startswith("make ")}
    assert all(f"\n{target.removeprefix('make ')}:" in (ROOT / "Makefile").read_text() for target in of_make)
    targets = {source.target for source in sources} - of_make
    plain = sorted(target for target in targets if " " not in target)
    assert all(target.startswith("results/tables/") for target in plain)
    of_servers = {target for target in targets if "servers" in target} if find_spec("vllm") is None else set()
    for target in (" ".join(plain), *sorted(targets - set(plain) - of_servers)):
        done = run_snakemake("-n", "--quiet", "--cores", "2", "--nolock", *target.split())
        assert done.returncode == 0, f"{target}: {done.stdout[-500:]} {done.stderr[-1000:]}"


def test_a_bad_configuration_stops_before_any_job(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text((ROOT / "workflows/config/smoke.yaml").read_text().replace("step_qps: 0.2", "step_qps: -0.2"))
    done = snakemake(tmp_path / "results", experiments=str(path))
    assert done.returncode != 0 and "step_qps is -0.2" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_committed_configuration_is_valid(path):
    load_experiments(path)


def test_the_committed_server_configuration_is_valid():
    experiment = load_server_experiment(SERVERS)
    assert {"short", "full"} <= set(experiment.forms)
    assert len(experiment.form("full").loads_qps_per_gpu) >= 4 and len(experiment.systems) == 4
    noisy = load_server_experiment(SERVERS.with_name("steady_engine.yaml"))
    assert noisy.virtual().noise > 0 and noisy.classes == experiment.classes
    assert noisy.virtual().loads_qps_per_gpu == experiment.virtual().loads_qps_per_gpu


def test_an_unknown_key_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text((ROOT / "workflows/config/smoke.yaml").read_text() + "\nsedes: 3\n")
    with pytest.raises(ConfigError, match="sedes is not a known field"):
        load_experiments(path)


def test_paper_configuration_uses_the_papers_request_counts():
    """The counts of the authors' scripts (Fig 7, 10, 11) and of Table 4, at five seeds or more."""
    paper = load_experiments(ROOT / "workflows/config/paper.yaml")
    capacity, summary = paper.searches["capacity"], paper.grids["summary"]
    assert capacity.requests["azure-code-2023"] == 39_000
    assert capacity.requests["azure-conv-2023"] == 42_000
    assert capacity.requests["sharegpt-8k"] == 18_000
    assert summary.requests == 75_000 and paper.cluster.requests == 360_000
    assert min(capacity.seeds, summary.seeds, paper.cluster.seeds) >= 5
    assert min(paper.searches["long_capacity"].requests.values()) >= 120_000


@pytest.mark.parametrize("figure", PAPER_FIGURES)
def test_paper_configuration_makes_every_table_that_a_figure_reads(figure):
    """Without it the target `paper` would leave the figure out."""
    assert set(figure_module(figure).INPUTS) <= set(load_experiments(ROOT / "workflows/config/paper.yaml").tables)


def test_trace_step_says_where_the_trace_came_from(tmp_path):
    out = tmp_path / "t.json"
    assert main(["trace", "azure-code-2023-synth", "--out", str(out)]) == 0
    about = json.loads(out.read_text())
    assert about["source"] == "synthetic" and about["trace"].endswith("-synth")
