"""An edit of the code makes the tables that depend on it stale for Snakemake, and no others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("chunk_curve", "five_requests")
FUTURE = "from __future__ import annotations\n"


def snakemake(checkout: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    command += [f"results/tables/{name}.parquet" for name in TARGETS]
    command += ["--config", "experiments=workflows/config/smoke.yaml", "servers=none"]
    path = f"{checkout / 'scheduler'}{os.pathsep}{checkout}"
    done = subprocess.run(
        command, cwd=checkout, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def edit(checkout: Path, module: str, new: str) -> None:
    path = checkout / module
    text = path.read_text()
    assert FUTURE in text
    path.write_text(text.replace(FUTURE, FUTURE + new))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_edit_makes_the_tables_that_depend_on_it_stale(tmp_path):
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "reference")
    for name in ("artifact", "scheduler", "traces", "figures", "workflows"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    shutil.copy(ROOT / "Snakefile", checkout)
    snakemake(checkout)
    assert "Nothing to be done" in snakemake(checkout, "-n")
    edit(checkout, "scheduler/niyama/plan.py", "# a comment\n")
    edit(checkout, "artifact/report.py", "OTHER = 1\n")
    assert "Nothing to be done" in snakemake(checkout, "-n")
    edit(checkout, "artifact/panels/five_requests.py", "OTHER = 1\n")
    planned = snakemake(checkout, "-n")
    assert "panel five_requests" in planned and "panel chunk_curve" not in planned and "artifact compile" not in planned
    edit(checkout, "scheduler/niyama/latency/model.py", "OTHER = 1\n")
    planned = snakemake(checkout, "-n")
    assert all(f"panel {name}" in planned for name in TARGETS) and "artifact compile" in planned
