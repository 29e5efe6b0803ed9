"""Why a part of the pipeline was not made: for the report, and for the last lines that a run prints.

Every rule runs `python -m artifact ...`, and that notes its own failure in the folder that FOLDER names, under what it
should have written. When a run has failed, the Snakefile asks `incomplete` which files are missing and why, and
`python -m artifact report --incomplete` makes the report of all others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifact.results.tables import ResultError, write_text

FOLDER = "NIYAMA_FAILURES"  # environment variable: where to note failures; not set outside the pipeline
AGAIN = "NIYAMA_AGAIN"  # environment variable: the command that goes on; its default makes the default target
OUTPUTS = ("out", "stamp", "windows", "markdown")  # options that name a file that a command writes
SILENT = "its job ended without a message: it was killed, or the machine is out of memory"
MOST_SHOWN = 240  # characters of a reason that are shown at the end of a run


@dataclass(frozen=True)
class Failure:
    """A part that was not made. reason: what its command said last; command: the one that makes it."""

    part: str
    reason: str
    command: str


@dataclass(frozen=True)
class Incomplete:
    """What a failed run did not make. failures: what failed itself; outputs: whose fault each missing file is.

    A file is called by its path in the folder of results, such as figures/fig7.txt, a figure's stamp.
    """

    failures: tuple[Failure, ...]
    outputs: Mapping[str, tuple[Failure, ...]]

    @staticmethod
    def read(path: Path) -> Incomplete:
        """From a file that `write` wrote; ResultError for any other."""
        try:
            found = json.loads(path.read_text())
            outputs = {name: tuple(Failure(**each) for each in own) for name, own in found["outputs"].items()}
            return Incomplete(tuple(Failure(**each) for each in found["failures"]), outputs)
        except (ValueError, AttributeError, KeyError, TypeError):
            raise ResultError(f"{path}: is not what a failed run wrote; run `snakemake` to make it again") from None

    def also(self, more: Sequence[Failure]) -> Incomplete:
        """With more that failed."""
        return Incomplete((*self.failures, *more), self.outputs)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def again() -> str:
    """The command that goes on where a run stopped."""
    return os.environ.get(AGAIN) or "snakemake --cores all"


def note(arguments: Sequence[str], options: argparse.Namespace, error: BaseException) -> None:
    """Write down why a command failed, where the pipeline asked for it and there is room: the error itself is printed
    all the same."""
    kind = "" if str(error) and isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: "
    noted = {"reason": kind + str(error), "command": shlex.join(["python", "-m", "artifact", *arguments])}
    for path in _records(options):
        with suppress(OSError):
            write_text(path, json.dumps(noted))


def _records(options: argparse.Namespace) -> list[Path]:
    folder = os.environ.get(FOLDER)
    outputs = [getattr(options, name, None) for name in OUTPUTS]
    return [_record(Path(folder), str(output)) for output in outputs if folder and isinstance(output, Path)]


def _record(folder: Path, output: str) -> Path:
    return folder / f"{hashlib.sha256(os.path.normpath(output).encode()).hexdigest()[:16]}.json"


def forget(dag: Any, folder: Path) -> None:
    """Remove what earlier runs noted of the jobs that are to run; another run's notes stay."""
    for job in dag.jobs:
        for output in job.output if dag.needrun(job) else ():
            _record(folder, str(output)).unlink(missing_ok=True)


def incomplete(dag: Any, results: Path) -> Incomplete:
    """What Snakemake's DAG has not finished, with the reasons noted in results/failures."""
    waiting = {job for job in dag.jobs if dag.needrun(job) and not dag.finished(job)}

    def causes(job: Any, seen: set[Any]) -> dict[Any, None]:
        """The jobs upstream, or this one, that could have run: they failed."""
        seen.add(job)
        before = [other for other in dag.dependencies[job] if other in waiting]
        if not before:
            return {job: None}
        return {cause: None for other in before if other not in seen for cause in causes(other, seen)}

    outputs: dict[str, tuple[Failure, ...]] = {}
    failures: dict[Failure, None] = {}
    for job in waiting:
        own = sorted((_failure(cause, results / "failures") for cause in causes(job, set())), key=_part)
        failures |= dict.fromkeys(own)
        outputs |= {os.path.relpath(output, results): tuple(own) for output in map(str, job.output)}
    return Incomplete(tuple(sorted(failures, key=_part)), outputs)


def _part(failure: Failure) -> str:
    return failure.part


def _failure(job: Any, folder: Path) -> Failure:
    outputs = [str(output) for output in job.output]
    notes = (found for output in outputs if (found := _noted(_record(folder, output))))
    noted = next(notes, {"reason": SILENT, "command": job.shellcmd or ""})
    return Failure(outputs[0] if outputs else job.rule.name, noted["reason"], noted["command"])


def _noted(path: Path) -> dict[str, str] | None:
    """What `note` wrote; None where it wrote nothing, or what is there is damaged or cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("reason", "command")):
            return found
    return None


def closing_text(found: Incomplete, report: Path | None, troubles: Sequence[str] = ()) -> str:
    """What to print when a run has failed. troubles: what failed while this was found out."""
    count = len(found.failures)
    head = f"{count} part{'s' * (count != 1)} failed" if count else "The run failed"
    lines = [f"{head}." if troubles else f"{head}; everything else was made."]
    lines += [f"  besides, {trouble}" for trouble in troubles]
    for failure in found.failures:
        reason = " ".join(failure.reason.split())
        lines += [f"  {failure.part}: {reason[:MOST_SHOWN]}{'...' * (len(reason) > MOST_SHOWN)}"]
        lines += [f"    by hand: {failure.command}"]
    if report is not None:
        lines.append(f"Report, which says what is missing: {report}")
    lines.append(f"To go on (what is finished stays): {again()}")
    return "\n".join(lines)
