"""Runs of the pipeline that were killed: their lock is released and their jobs are ended when the next run starts.

Snakemake's lock outlives a `kill -9`, and so do the jobs that ran. So every run holds a lock of the operating system on
a file of its own in .snakemake/runs, and its jobs share one on another: both are free once the processes are gone,
however they went. The next run looks, one run at a time. Whatever may still be written by another keeps its lock, and
Snakemake refuses the second run: jobs that a killed run handed to a cluster, and runs of another machine on a file
system that several can mount.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import platform
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

VARIABLE = "NIYAMA_RUN"  # in the environment of each job: the file that all jobs of its run hold
FOLDER = Path(".snakemake")
#: File systems of one machine: on others a lock may be free because another machine holds it.
OF_ONE_MACHINE = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "ramfs"}
MOUNTS = Path("/proc/self/mountinfo")
LEFT = (
    "A run before was killed, and jobs of it may go on, in a cluster's queue or on another machine. See that there are "
    "none, then `snakemake --unlock` and start again."
)
LOOKS, LOOK_EVERY_S = 100, 0.1  # for killed jobs to be gone
_held: list[IO[str]] = []  # open files: what this process holds until it ends


def guard(workflow: Any) -> str:
    """Have a run take over when it starts to execute, and `--unlock` forget dead ones; what VARIABLE is for its jobs.

    Whatever does not execute (a dry run, a report, a listing) and a cluster's job leave everything as it is.
    """
    if not workflow.is_main_process:
        return os.environ.get(VARIABLE, "")
    jobs = (FOLDER / "runs" / f"{secrets.token_hex(8)}.jobs").absolute()
    execute, unlock = workflow.execute, workflow.unlock

    def executed(**options: Any) -> Any:
        settings = options["executor_plugin"].common_settings
        if not settings.dryrun_exec:
            take_over(jobs, settings.local_exec)
        return execute(**options)

    def unlocked() -> None:
        forget(jobs.parent)
        unlock()

    workflow.execute, workflow.unlock = executed, unlocked
    return str(jobs)


def take_over(jobs: Path, local: bool = True) -> None:
    """Clear away what dead runs left and enter this one, whose jobs hold `jobs`; local: they run on this machine."""
    with suppress(OSError):  # a folder that cannot be written, or has no locks, is Snakemake's to refuse
        jobs.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(jobs.parent):
            _clear(jobs.parent)
            own = jobs.with_suffix(".run")
            file = own.open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({"machine": platform.node(), "local": local}, file)
            file.flush()
            _held.append(file)
        for path in (own, jobs):
            atexit.register(path.unlink, missing_ok=True)


def join() -> None:
    """Hold the file that VARIABLE names, together with the run's other jobs, until this process ends."""
    if name := os.environ.get(VARIABLE):
        with suppress(OSError):
            _held.append(open(name, "a+"))
            fcntl.flock(_held[-1], fcntl.LOCK_SH)


def forget(runs: Path) -> None:
    """Remove all that no living run holds, and end what jobs of dead ones are left here: for `--unlock`."""
    if runs.is_dir():
        with suppress(OSError), _one_at_a_time(runs):
            for path in runs.glob("*.run"):
                if _free(path):
                    _end_jobs(path.with_suffix(".jobs"))
            for path in runs.iterdir():
                if _free(path.with_suffix(".run")) or not path.with_suffix(".run").exists():
                    path.unlink(missing_ok=True)


@contextmanager
def _one_at_a_time(runs: Path) -> Iterator[None]:
    with (runs.parent / "runs.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear(runs: Path) -> None:
    """End the jobs of dead runs; release Snakemake's lock when nothing else can be what holds it."""
    locks = list((runs.parent / "locks").glob("*.lock"))
    others = [path for path in runs.glob("*.run") if _about(path)]
    over = [path for path in others if _is_over(path)]
    for path in over:
        path.unlink(missing_ok=True)
        path.with_suffix(".jobs").unlink(missing_ok=True)
    if locks and over and len(over) == len(others):
        for path in locks:
            path.unlink(missing_ok=True)
        print("The run before was killed: its lock is released, what it finished stays.", file=sys.stderr)
    elif locks and any(map(_free, set(others) - set(over))):
        print(LEFT, file=sys.stderr)


def _about(path: Path) -> dict[str, Any]:
    """What a run wrote of itself; nothing for a file that no run wrote. What cannot be read may be another user's."""
    try:
        about = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    except OSError:
        return {"machine": "", "local": False}
    return about if isinstance(about, dict) and {"machine", "local"} <= about.keys() else {}


def _is_over(path: Path) -> bool:
    """Whether a run and all its jobs have ended, for sure; of one that was killed here, the jobs are ended now."""
    about, jobs = _about(path), path.with_suffix(".jobs")
    if not about["local"] or not _free(path):
        return False
    if about["machine"] != platform.node() and not _of_one_machine(path):
        return False
    _end_jobs(jobs)
    for _ in range(LOOKS):
        if not jobs.exists() or _free(jobs):
            return True
        time.sleep(LOOK_EVERY_S)
    return False


def _free(path: Path) -> bool:
    """Whether nobody holds the file; False where there is no telling."""
    for mode in ("r+", "r"):  # NFS locks only what can be written, and another user's file cannot be
        with suppress(OSError), path.open(mode) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _of_one_machine(path: Path) -> bool:
    """Whether no other machine can have mounted the file system, as far as its kind tells."""
    with suppress(OSError):
        device = path.parent.stat().st_dev
        mounts = [line.partition(" - ") for line in MOUNTS.read_text().splitlines()]
        wanted = f"{os.major(device)}:{os.minor(device)}"
        kinds = {kind.split()[0] for mount, _, kind in mounts if mount.split()[2] == wanted}
        return bool(kinds) and kinds <= OF_ONE_MACHINE
    return False


def _end_jobs(jobs: Path) -> None:
    """Kill what a dead run left running: it would write the same files as the new run's jobs."""
    wanted = os.fsencode(f"{VARIABLE}={jobs}")
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
