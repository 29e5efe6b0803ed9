"""The rules of the server sweep: one start per system and seed, alone on the machine, in lines that parse."""

import re
import shlex
from importlib.util import find_spec

import pytest

from artifact.commands.table import parser
from artifact.servers.config import load_server_experiment
from tests.helpers.snakemake_forks import ROOT, run_snakemake

SERVERS = load_server_experiment(ROOT / "workflows" / "config" / "servers.yaml")


def dry_run(*arguments: str) -> str:
    done = run_snakemake("-n", "--cores", "3", "--nolock", *arguments)
    return done.stdout + done.stderr


def test_the_full_form_is_a_life_per_system_and_its_lines_parse(tmp_path):
    said = dry_run("servers", "--config", f"results={tmp_path}")
    cycles = re.findall(r"rule server_sweep:(?:\n .*)+", said)
    assert len(cycles) == len(SERVERS.systems) * SERVERS.form("full").seeds
    assert all("threads: 3" in cycle for cycle in cycles), "other jobs would run beside a server"
    lines = [shlex.split(line) for line in re.findall(r"python -m artifact (.*)", said)]
    names = set()
    for line in lines:
        options = parser().parse_args(line)
        names.add(line[0])
        if line[0] == "server-sweep":
            assert options.form == "full" and options.backend == "auto" and options.system in SERVERS.systems
            assert options.out.with_suffix("").name == options.folder.name
    assert {"server-sweep", "server-simulated", "server-table", "figure"} <= names


def test_without_servers_no_job_is_about_them(tmp_path):
    said = dry_run("--config", f"results={tmp_path}", "servers=none")
    names = "".join(re.findall(r"rule (\w+):", said))
    assert "rule report:" in said and "server" not in names and "engine" not in names
    assert not re.search(r"artifact report .*--servers", said)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_default_target_runs_the_engine_in_virtual_time_and_checks_servers(tmp_path):
    """A job per system and seed, side by side; of real servers a few dozen requests each, at one load."""
    said = dry_run("--config", f"results={tmp_path}")
    jobs = re.findall(r"rule engine_sweep:(?:\n .*)+", said)
    virtual = SERVERS.virtual()
    assert len(jobs) == len(SERVERS.systems) * virtual.seeds and not any("threads" in job for job in jobs)
    assert virtual.seeds >= 3 and len(virtual.loads_qps_per_gpu) >= 4
    (options,) = {line for line in re.findall(r"python -m artifact (engine-sweep .*silo --seed 2 .*)", said)}
    assert parser().parse_args(shlex.split(options)).system == "silo"
    assert re.search(r"artifact report .*--servers", said)
    check = SERVERS.form("short")
    assert len(check.loads_qps_per_gpu) == 1 and 24 <= check.loads_qps_per_gpu[0] * check.seconds <= 64


def test_an_unknown_form_stops_before_any_job(tmp_path):
    said = dry_run("--config", f"results={tmp_path}", "servers=huge")
    assert "form 'huge' is unknown; use one of short, full, or none" in said
