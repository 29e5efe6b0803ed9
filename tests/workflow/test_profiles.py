"""Profiles for clusters run the same rules: a dry run by Slurm's executor, a real one by the local executor."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from artifact.config import ConfigError
from artifact.experiments.config import load_experiments
from artifact.results.tables import read_table
from tests.helpers.snakemake_forks import ROOT, run_snakemake

SMOKE = "workflows/config/smoke.yaml"
PROFILES = ("slurm", "kubernetes")
HAS_SLURM = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None


def profile(name: str) -> dict:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


def snakemake(name: str, results: Path, *arguments: str):
    settings = ("--config", f"experiments={SMOKE}", f"results={results}", "servers=none")
    return run_snakemake("--profile", f"profiles/{name}", "--nolock", *arguments, *settings)


@pytest.mark.parametrize("name", PROFILES)
def test_resources_are_those_of_rules_that_exist(name):
    rules = set()
    for path in (ROOT / "workflows" / "rules").glob("*.smk"):
        rules |= set(re.findall(r"^(?:use )?rule (?:\w+ as )?(\w+)(?: with)?:", path.read_text(), re.MULTILINE))
    assert set(profile(name)["set-resources"]) <= rules


@pytest.mark.parametrize("name", PROFILES)
def test_a_cluster_runs_the_papers_experiments_with_more_seeds(name):
    values = dict(value.split("=") for value in profile(name)["config"])
    more, paper = load_experiments(ROOT / values["experiments"]), load_experiments(ROOT / "workflows/config/paper.yaml")
    assert {experiment.seeds for experiment in (more.cluster, *more.named.values())} == {20}
    assert more.grids["summary"].model_copy(update={"seeds": paper.grids["summary"].seeds}) == paper.grids["summary"]
    assert more.named.keys() == paper.named.keys()


def test_a_file_like_another_says_nothing_else(tmp_path):
    (tmp_path / "a.yaml").write_text(f"like: {ROOT / SMOKE}\nseeds: 3\nlatencies: [a]\n")
    with pytest.raises(ConfigError, match="latencies is not a known field"):
        load_experiments(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("like: nowhere.yaml\nseeds: 3\n")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_experiments(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text(f"like: {ROOT / SMOKE}\nseeds: 0\n")
    with pytest.raises(ConfigError, match="seeds is 0"):
        load_experiments(tmp_path / "c.yaml")


@pytest.mark.skipif(
    not HAS_SLURM, reason="snakemake-executor-plugin-slurm is not installed (pip install -e '.[slurm]')"
)
def test_slurm_takes_every_job_with_memory_and_time(tmp_path):
    done = snakemake("slurm", tmp_path / "results", "--dry-run", "paper")
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = re.findall(r"^rule (\w+):\n(?:    .*\n)+", done.stdout + done.stderr, re.MULTILINE)
    assert {"cluster", "grid", "search", "figure", "paper_report"} <= set(jobs)
    wanted = profile("slurm")["set-resources"]["cluster"]
    (cluster,) = re.findall(
        r"^rule cluster:\n(?:    .*\n)*?    resources: (.*)$", done.stdout + done.stderr, re.MULTILINE
    )[:1]
    assert f"mem_mb={wanted['mem_mb']}" in cluster and f"runtime={wanted['runtime']}" in cluster


@pytest.mark.parametrize(
    "name", [pytest.param("slurm", marks=pytest.mark.nightly("profiles", "workflows")), "kubernetes"]
)
def test_its_jobs_run_to_the_end_by_the_local_executor(name, tmp_path):
    table = tmp_path / "results" / "tables" / "steps.parquet"
    done = snakemake(name, tmp_path / "results", "--executor", "local", "--cores", "2", str(table))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {row["seed"] for row in read_table(table).to_pylist()} == {0, 1}


def test_the_kubernetes_job_runs_its_profile_within_what_it_asks_for():
    job = yaml.safe_load((ROOT / "profiles/kubernetes/job.yaml").read_text())
    volume, _ = yaml.safe_load_all((ROOT / "profiles/kubernetes/volume.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,), own = pod["containers"], profile("kubernetes")
    assert "--profile profiles/kubernetes" in container["args"][0] and "make setup" in container["args"][0]
    assert int(container["resources"]["requests"]["cpu"]) == own["cores"]
    memory_mb = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    assert int(own["resources"][0].removeprefix("mem_mb=")) < memory_mb
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == volume["metadata"]["name"]
