"""What the Snakefile does before its first step and after a run that failed."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifact import costs
from artifact.failures import Incomplete, again, incomplete, last_words
from artifact.progress import in_words

#: Rules that write a report, and its name.
REPORTS = {"report": "report", "paper_report": "paper"}
#: Of the tables that a failed run made, where it made no manifest.
INCOMPLETE_MANIFEST = "tables/manifest-incomplete.json"
SERVER_FIGURE = "fig_servers"


def begin(workflow: Any, results: Path, costs_known: bool, server_life_s: float) -> None:
    """Forget what the run before this one could not make; say how long this one takes, and then how far it is.

    costs_known: whether the minutes in claims.yaml are of this configuration. server_life_s: what a system of real
    servers takes.
    """
    from snakemake.logging import logger

    from artifact.verdicts.claims import table_minutes

    minutes = table_minutes() if costs_known else {}
    shutil.rmtree(results / "failures", ignore_errors=True)
    (results / INCOMPLETE_MANIFEST).unlink(missing_ok=True)
    seconds = costs.planned_s(workflow.dag, minutes, server_life_s)
    takes = f"about {in_words(sum(seconds.values()))} on two cores that do nothing else" if minutes else ""
    takes = takes or "how long is not known for this configuration (the paper's is: see artifact/claims.yaml)"
    print(f"{len(seconds)} steps: {takes}; interrupted, it goes on where it stopped", file=sys.stderr, flush=True)
    logger.addHandler(costs.Steps(seconds, whole=bool(minutes)))


def end(workflow: Any, results: Path, figures: Sequence[str], servers: bool) -> None:
    """Make the reports that were asked for of what there is, and say what failed and how to go on.

    figures: those of the long report; servers: whether real ones are shown. After Ctrl-C it only says how to go on.
    """
    if workflow.scheduler is not None and getattr(workflow.scheduler, "_user_kill", None):
        _say_last(f"Interrupted. To go on (what is finished stays): {again()}")
        return
    found = incomplete(workflow.dag, results / "failures", [*figures, SERVER_FIGURE])
    names = [REPORTS[job.rule.name] for job in workflow.dag.jobs if job.rule.name in REPORTS]
    path = None
    for name in names:
        path = _report(found, results, name, figures, servers) or path
    _say_last(last_words(found, path))


def _say_last(text: str) -> None:
    """Print when Snakemake, which still has things to say, has said them."""
    atexit.register(print, f"\n{text}", file=sys.stderr, flush=True)


def _report(found: Incomplete, results: Path, name: str, figures: Sequence[str], servers: bool) -> Path | None:
    """One report with boxes in the place of what is missing; None when even that fails."""
    (results / f"{name}.txt").unlink(missing_ok=True)
    noted = results / "failures" / "incomplete.json"
    found.write(noted)
    command = [sys.executable, "-m", "artifact", "report", "--results", str(results), "--name", name]
    command += ["--incomplete", str(noted), *["--servers"] * servers]
    command += ["--figures", *figures] if name == "paper" else []
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    return results / f"{name}.html" if done.returncode == 0 else None
