"""Snakemake without its start: the imports, longer than all else in a small run or a dry one, are done once.

A process that has done them forks for each run; what a run changes ends with its fork.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
#: Of no package of ours: what a checkout's own code imports.
LIBRARIES = "import aiohttp, matplotlib.figure, numba, pandas, pyarrow.parquet, pydantic, scipy, snakemake.cli"
#: What the Snakefile of this checkout imports, and the hashes of its code, which no test edits.
OURS = """
import artifact.report.draw, artifact.report.figure_sources, artifact.servers.config
import artifact.experiments.config, artifact.workflow.endings, artifact.workflow.run_lock
from artifact.results.code_hash import MADE_BY, modules_of
for name in MADE_BY:
    modules_of(name)
"""
SERVE = """
import json, os, sys
{imports}
for line in sys.stdin:
    asked = json.loads(line)
    if not (child := os.fork()):
        os.chdir(asked["cwd"])
        os.environ.update(asked["env"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in enumerate(("stdout", "stderr"), 1):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.argv = ["snakemake", *asked["arguments"]]
        sys.exit(snakemake.cli.main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Runs Snakemake in forks of one process. imports: what that process imports first."""

    def __init__(self, imports: str, **where: object) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-c", SERVE.format(imports=imports)], **pipes, **where)

    def run(self, *arguments: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """As `snakemake *arguments` in this folder; env: variables that differ."""
        with TemporaryDirectory() as folder:
            files = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
            asked = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), **files}
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            status = self._process.stdout.readline()
            assert status, "the process that forks ended"
            said = {name: Path(path).read_text() for name, path in files.items()}
        return subprocess.CompletedProcess(arguments, int(status), **said)

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        self._process.communicate()


@cache
def _of_this_checkout() -> Forks:
    forks = Forks(LIBRARIES + OURS, cwd=ROOT)
    atexit.register(forks.close)
    return forks


def run_snakemake(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """As `python -m snakemake *arguments` with this checkout's packages and this Python's commands on the paths."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    packages = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return _of_this_checkout().run(*arguments, cwd=cwd, env={"PATH": path, "PYTHONPATH": packages})
