"""Runs of the pipeline that were killed: their lock is released and their jobs are ended when the next run starts.

Snakemake's lock outlives a `kill -9`, and so do the jobs that ran. So every run leaves a file in .snakemake/runs that
names it (process, its start, machine); the next one finds out whether it is still there. One that is still there keeps
its lock, and Snakemake refuses the second run.
"""

from __future__ import annotations

import atexit
import os
import platform
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

VARIABLE = "NIYAMA_RUN"  # in the environment of each job: the run that it belongs to


def take_over(snakemake_folder: Path = Path(".snakemake")) -> str:
    """Clear away what dead runs left in this folder, enter this run, and return its name, for its jobs' environment.

    No lock is released while any other run lives, or one of another machine may: then Snakemake decides.
    """
    runs, locks = snakemake_folder / "runs", list((snakemake_folder / "locks").glob("*.lock"))
    others = [path for path in runs.glob("*") if path.name != run_name(os.getpid())] if runs.is_dir() else []
    dead = [path for path in others if not may_live(path.name)]
    for path in dead:
        _end_jobs(path.name)
        path.unlink(missing_ok=True)
    if locks and dead and len(dead) == len(others):
        for path in locks:
            path.unlink(missing_ok=True)
        print("The run before was killed: its lock is released, what it finished stays.", file=sys.stderr)
    own = run_name(os.getpid())
    with suppress(OSError):  # a folder that cannot be written is Snakemake's to refuse
        runs.mkdir(parents=True, exist_ok=True)
        (runs / own).touch()
        atexit.register((runs / own).unlink, missing_ok=True)
    return own


def run_name(pid: int) -> str:
    """Names a process for ever: its number, start, and where the number means something."""
    return f"{pid}-{_started(pid)}-{_machine()}"


def may_live(name: str) -> bool:
    """Whether the process of that name runs, or nobody here can tell."""
    pid, started, machine = name.split("-", 2)
    if machine != _machine():
        return True
    return started in ("", _started(int(pid)))


def _started(pid: int) -> str:
    """Ticks since boot at which it started; empty when there is no such process (or no /proc)."""
    with suppress(OSError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else rest[18]
    return ""


def _machine() -> str:
    """This boot of this machine, and this container on it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return re.sub(r"\W", "_", f"{platform.node()}-{boot[:8]}-{os.readlink('/proc/self/ns/pid')[5:-1]}")
    return re.sub(r"\W", "_", platform.node())


def _end_jobs(name: str) -> None:
    """Kill what a dead run left running: it would write the same files as the new run's jobs."""
    for pid in _jobs(name):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _jobs(name: str) -> Iterator[int]:
    wanted = f"{VARIABLE}={name}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
