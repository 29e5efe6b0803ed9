"""Whose lock and whose jobs a run takes away: those of runs that are over for sure, and nobody else's."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.workflow import run_lock
from artifact.workflow.run_lock import VARIABLE, forget, take_over
from tests.helpers.snakemake_forks import ROOT, run_snakemake
from tests.helpers.waiting import HANG_S

#: Enters a run, as Snakemake does, and then waits, as a job of that run does.
RUN = "import sys; from pathlib import Path; from artifact.workflow.run_lock import *; take_over(Path(sys.argv[1])); {}"
JOB = "from artifact.workflow.run_lock import *; join(); {}"
WAIT = "print('in', flush=True); input()"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """.snakemake/runs of a folder with a lock in it."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.output.lock").write_text("results/a\n")
    monkeypatch.setattr(run_lock, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(run_lock, "_held", [])  # what this process holds ends with the test
    return tmp_path / "runs"


@pytest.fixture
def started():
    """Start a Python that says when it is as far as it gets; ended with the test."""
    processes = []

    def start(code: str, *arguments: Path, **environment: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-c", code.format(WAIT), *map(str, arguments)]
        processes.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, **pipes))
        assert processes[-1].stdout.readline() == b"in\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def dead(runs: Path, name: str = "1", **about: object) -> Path:
    """A run that was killed: the file that it held, and that of its jobs."""
    (runs / f"{name}.run").write_text(json.dumps({"machine": platform.node(), "local": True, **about}))
    (runs / f"{name}.jobs").touch()
    return runs / f"{name}.jobs"


def locked(runs: Path) -> bool:
    return (runs.parent / "locks" / "0.output.lock").exists()


def test_the_lock_of_a_killed_run_is_released_and_its_jobs_end(runs, started, capsys):
    jobs = runs / "1.jobs"
    run, job = started(RUN, jobs), started(JOB, **{VARIABLE: str(jobs)})
    child = started("{}", **{VARIABLE: str(jobs)})  # of a job, such as a server: it holds nothing
    bystander = started("{}", **{VARIABLE: f"{jobs}0"})
    run.kill()
    run.wait()
    take_over(runs / "2.jobs")
    assert job.wait(timeout=HANG_S) == child.wait(timeout=HANG_S) == -signal.SIGKILL and bystander.poll() is None
    assert not locked(runs) and "lock is released" in capsys.readouterr().err
    assert sorted(path.name for path in runs.iterdir()) == ["2.run"]


def test_the_lock_of_a_run_that_lives_stays(runs, started):
    """Whatever /proc says of it, and however many dead ones there are beside it."""
    started(RUN, runs / "1.jobs")
    dead(runs, "0")
    take_over(runs / "2.jobs")
    assert locked(runs) and sorted(path.name for path in runs.iterdir()) == ["1.run", "2.run"]


def test_a_run_that_ends_leaves_nothing(runs):
    subprocess.run([sys.executable, "-c", RUN.format("pass"), str(runs / "1.jobs")], cwd=ROOT, check=True)
    assert not list(runs.iterdir())


def test_jobs_that_cannot_be_ended_keep_the_lock(runs, started, monkeypatch, capsys):
    """Another user's, another container's, or where there is no /proc to find them in."""
    started(JOB, **{VARIABLE: str(dead(runs))})
    monkeypatch.setattr(run_lock, "_end_jobs", lambda jobs: None)
    take_over(runs / "2.jobs")
    assert locked(runs) and (runs / "1.run").exists()
    assert "snakemake --unlock" in capsys.readouterr().err


def test_jobs_on_a_cluster_keep_the_lock_of_their_killed_run(runs, capsys):
    """They may still be in its queue: two would write the same files."""
    dead(runs, local=False)
    take_over(runs / "2.jobs")
    assert locked(runs) and "snakemake --unlock" in capsys.readouterr().err


@pytest.mark.parametrize(("of_one_machine", "stays"), [(False, True), (True, False)])
def test_another_machine_keeps_its_lock_where_both_can_write(runs, monkeypatch, of_one_machine, stays):
    """A disk of one machine, which has another name since: a new container."""
    dead(runs, machine="elsewhere")
    monkeypatch.setattr(run_lock, "_of_one_machine", lambda path: of_one_machine)
    take_over(runs / "2.jobs")
    assert locked(runs) is stays


def test_kinds_of_file_systems_are_told_apart(tmp_path, monkeypatch):
    device = tmp_path.stat().st_dev
    place = f"36 35 {os.major(device)}:{os.minor(device)} / /a\\040b rw shared:1"
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(run_lock, "MOUNTS", mounts)
    for kind, is_of_one in (("ext4", True), ("nfs4", False), ("fuse.sshfs", False)):
        mounts.write_text(f"{place} - {kind} /dev/a rw\n22 1 0:0 / /proc rw - proc proc rw\n")
        assert run_lock._of_one_machine(tmp_path / "1.run") is is_of_one
    mounts.unlink()
    assert not run_lock._of_one_machine(tmp_path / "1.run")


def test_one_run_at_a_time_takes_over_and_is_entered_before_the_next(runs, monkeypatch):
    """Else one that was entered in between would lose its lock to one that had looked before."""
    dead(runs)

    def nobody_else(jobs: Path) -> None:
        assert not run_lock._free(runs.parent / "runs.lock")

    monkeypatch.setattr(run_lock, "_end_jobs", nobody_else)
    take_over(runs / "2.jobs")
    assert not run_lock._free(runs / "2.run") and run_lock._free(runs.parent / "runs.lock")


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}"])
def test_a_file_that_no_run_wrote_says_nothing(runs, text):
    (runs / "1-2-host").write_text(text)
    (runs / "1.run").write_text(text)
    take_over(runs / "2.jobs")
    assert locked(runs), "a lock that no run is known for is left to Snakemake"


def test_where_files_cannot_be_locked_nothing_is_taken(runs, monkeypatch):
    def refused(*_):
        raise OSError("no locks available")

    dead(runs)
    monkeypatch.setattr(run_lock.fcntl, "flock", refused)
    take_over(runs / "2.jobs")
    assert locked(runs)


def test_unlock_forgets_what_nobody_holds(runs, started):
    started(RUN, runs / "1.jobs")
    for name, about in (("2", {"local": False}), ("3", {"machine": "elsewhere"}), ("4", {})):
        dead(runs, name, **about)
    job = started(JOB, **{VARIABLE: str(runs / "4.jobs")})
    (runs / "1-2-host").touch()
    forget(runs)
    assert sorted(path.name for path in runs.iterdir()) == ["1.run"]
    assert job.wait(timeout=HANG_S) == -signal.SIGKILL
    forget(runs.parent / "nowhere")


def test_every_command_of_a_run_holds_its_file_and_others_hold_nothing(runs, monkeypatch):
    jobs = dead(runs)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["figures"]) == 0 and run_lock._free(jobs)
    monkeypatch.setenv(VARIABLE, str(jobs))
    assert main(["figures"]) == 0 and not run_lock._free(jobs)


SNAKEFILE = """
from artifact.workflow.run_lock import VARIABLE, guard
shell.prefix(f"export {VARIABLE}={guard(workflow)}; ")
rule all:
    output: "a"
    shell: "python -c 'from artifact.workflow.run_lock import *; join()'; ls .snakemake/runs > {output}"
"""


def snakemake(folder: Path, *arguments: str):
    (folder / "Snakefile").write_text(SNAKEFILE)
    place = ("--directory", str(folder), "--snakefile", str(folder / "Snakefile"))
    return run_snakemake(*place, *arguments, cwd=folder)


def killed(folder: Path, started, **about: object) -> subprocess.Popen:
    """What a run that was killed leaves: its lock and its job, which is returned."""
    (runs := folder / ".snakemake" / "runs").mkdir(parents=True)
    (folder / ".snakemake" / "locks").mkdir()
    (folder / ".snakemake" / "locks" / "0.output.lock").write_text("a\n")
    return started(JOB, **{VARIABLE: str(dead(runs, **about))})


def test_only_a_run_that_executes_takes_over(tmp_path, started):
    job = killed(tmp_path, started)
    for arguments in (["-np"], ["--dry-run", "--cores", "1"], ["--summary"], ["--list-rules"], ["--dag"]):
        assert snakemake(tmp_path, *arguments).returncode == 0
    assert job.poll() is None and (tmp_path / ".snakemake" / "locks" / "0.output.lock").exists()
    done = snakemake(tmp_path, "--cores", "1")
    assert done.returncode == 0 and "lock is released" in done.stderr, done.stderr
    assert job.wait(timeout=HANG_S) == -signal.SIGKILL
    entered = (tmp_path / "a").read_text().split()
    assert {Path(name).suffix for name in entered} == {".jobs", ".run"} and len(
        {Path(name).stem for name in entered}
    ) == 1
    assert not list((tmp_path / ".snakemake" / "runs").iterdir())


def test_unlock_is_the_way_out_where_a_lock_was_left(tmp_path, started):
    job = killed(tmp_path, started, local=False)
    refused = snakemake(tmp_path, "--cores", "1")
    assert refused.returncode != 0 and "LockException" in refused.stderr and job.poll() is None
    assert "See that there are none, then `snakemake --unlock`" in refused.stderr
    assert snakemake(tmp_path, "--unlock").returncode == 0 and job.wait(timeout=HANG_S) == -signal.SIGKILL
    assert snakemake(tmp_path, "--cores", "1").returncode == 0
