"""What the Snakefile does before its first step, and after the last one or a failure."""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from artifact.commands.progress import duration_text
from artifact.results import failures
from artifact.results.failures import Failure, Incomplete, again, closing_text, incomplete
from artifact.results.manifest import write_manifest
from artifact.results.tables import ResultError, provenance, read_table
from artifact.workflow import costs

#: Rules that write a report, and its name.
REPORTS = {"report": "report", "paper_report": "paper"}
#: Of the tables that a failed run made, where it made no manifest.
INCOMPLETE_MANIFEST = "tables/manifest-incomplete.json"


def begin(workflow: Any, results: Path, costs_known: bool, server_cycle_s: float) -> None:
    """Forget what this run is to make again; say how long it takes, and then how far it is.

    costs_known: whether the minutes in artifact/claims/common.yaml are of this configuration. server_cycle_s: what a
    system of real servers takes.
    """
    from snakemake.logging import logger

    from artifact.claims.model import table_minutes

    if workflow.touch:  # it makes nothing
        return
    minutes = table_minutes() if costs_known else {}
    failures.forget(workflow.dag, results / "failures")
    _remove_stale(workflow.dag, results)
    seconds = costs.planned_s(workflow.dag, minutes, server_cycle_s)
    takes = f"about {duration_text(sum(seconds.values()))} on two cores that do nothing else" if minutes else ""
    takes = takes or "how long is not known for this configuration (the paper's is: see artifact/claims/common.yaml)"
    print(f"{len(seconds)} steps: {takes}; interrupted, it goes on where it stopped", file=sys.stderr, flush=True)
    logger.addHandler(costs.Steps(seconds, whole=bool(minutes)))


def _remove_stale(dag: Any, results: Path) -> None:
    """Remove tables, manifests and claims that are to be made again, so that none is left with newer ones when this
    run fails or is killed. What took long are their parts, which stay until their own jobs start."""
    (results / INCOMPLETE_MANIFEST).unlink(missing_ok=True)
    for path in _outputs(job for job in dag.jobs if dag.needrun(job)):
        if path.parent.name == "tables" or path.stem == "claims":
            path.unlink(missing_ok=True)


def _outputs(jobs: Any) -> Iterator[Path]:
    return (Path(output) for job in jobs for output in job.output)


def end(workflow: Any, results: Path, figures: Sequence[str], servers: bool) -> bool:
    """Whether all was made. Else make the reports that were asked for of what there is, and say what failed.

    figures: those of the long report; servers: whether real ones are shown. After Ctrl-C it only says how to go on.
    Also on a full disk, or where files are damaged, it says what failed: what it could not do is told as well.
    """
    dag = workflow.dag
    if workflow.scheduler is not None and getattr(workflow.scheduler, "_user_kill", None):
        _say_last(f"Interrupted. To go on (what is finished stays): {again()}")
        return False
    found, path, troubles = Incomplete((), {}), None, []
    with _told("what failed cannot be found", troubles):
        found = incomplete(dag, results)
    with _told("what servers noted cannot be read", troubles):
        found = found.also(_failed_run_cycles(workflow))
    if not found.failures and not troubles:
        return True
    with _told("the tables that were made cannot be listed", troubles):
        _list_made(dag, results, found)
    for job in dag.jobs if found.failures else ():
        if job.rule.name in REPORTS:
            with _told(f"no report {REPORTS[job.rule.name]}", troubles):
                path = _report(found, results, REPORTS[job.rule.name], figures, servers) or path
    _say_last(closing_text(found, path, troubles))
    return False


@contextmanager
def _told(what: str, troubles: list[str]) -> Iterator[None]:
    """Go on when this fails, and add to `troubles` what could not be done, and why."""
    try:
        yield
    except Exception as error:
        troubles.append(f"{what} ({type(error).__name__}: {' '.join(str(error).split())})")


def _failed_run_cycles(workflow: Any) -> list[Failure]:
    """Cycles of real servers that failed and only noted it. Their parts count as incomplete: the next run makes them
    again, also where what is made of them is there."""
    found = []
    for job in workflow.dag.jobs:
        for path in _outputs([job] if job.rule.name == costs.SERVER_RULE else []):
            with suppress(ResultError, ValueError):
                noted = provenance(read_table(path)).get("failures", ())
                found += [Failure(str(path), failure["reason"], job.shellcmd or "") for failure in noted]
                if noted:
                    workflow.persistence.started(job)
    return found


def _list_made(dag: Any, results: Path, found: Incomplete) -> None:
    """A manifest of the tables that there are, in the place of one that was not made."""
    if not any(Path(name).match("tables/manifest*.json") for name in found.outputs):
        return
    made = {path for path in _outputs(dag.jobs) if path.suffix == ".parquet" and path.parent == results / "tables"}
    write_manifest(results, results / INCOMPLETE_MANIFEST, filter(_is_whole, made))


def _is_whole(path: Path) -> bool:
    try:
        read_table(path)
    except (ResultError, ValueError):
        return False
    return True


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
