"""How long a run of the pipeline takes: said before it starts, and what is left of it after every step.

The minutes of each table stand in artifact/claims/common.yaml, measured on two cores; a step's share of them is its
weight. Real servers take the time of their starts and loads. Another configuration than the paper's has no minutes,
only steps.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from artifact.commands.progress import LOG_EVERY_S, duration_text
from artifact.servers.config import ServerExperiment, ServerForm

STEP_S = 4.0  # a step that only starts Python, reads and writes
SERVER_START_S, SERVER_DRAIN_S = 60.0, 20.0  # to start servers, and of each load after its last arrival
SERVER_RULE, TURNS_RULE = "server_sweep", "server_turns"
BEFORE_ALL = ("kernel", "trace")  # rules that no table pays for
SURE_SHARE = 0.15  # done; before that what was planned is the better estimate
BAR_WIDTH = 24


def run_cycle_s(experiment: ServerExperiment, form: ServerForm) -> float:
    """What one system's run cycle of a form takes, with a server for each pool at once."""
    loads = form.loads_qps_per_gpu or form.loads_of_fluid_bound or ()
    return SERVER_START_S + len(loads) * (form.seconds + SERVER_DRAIN_S)


def planned_s(dag: Any, minutes: Mapping[str, float], server_cycle_s: float) -> dict[int, float]:
    """Seconds of each step that is to run, by job id. minutes: of tables, by name."""
    jobs = {job for job in dag.jobs if dag.needrun(job)}
    seconds = dict.fromkeys(jobs, STEP_S)
    cycles = [job for job in jobs if job.rule.name == SERVER_RULE]
    in_turn = [job for job in jobs if job.rule.name == TURNS_RULE]  # one job that takes the time of all cycles
    seconds |= dict.fromkeys(in_turn, server_cycle_s * len(cycles)) or dict.fromkeys(cycles, server_cycle_s)
    for job in jobs:
        for name in {Path(output).stem for output in map(str, job.output) if "/tables/" in output}:
            parts = [part for part in dag.dependencies[job] if part in jobs and part.rule.name not in BEFORE_ALL]
            for part in parts or [job]:
                seconds[part] += 60.0 * minutes.get(name, 0.0) / len(parts or [job])
    return {dag.jobid(job): spent for job, spent in seconds.items()}


class Steps(logging.Handler):
    """Tells how far Snakemake is: a bar after every step on a terminal, a line now and then elsewhere.

    whole: whether the seconds are what the steps take, and not only their relation.
    """

    def __init__(
        self, seconds: Mapping[int, float], whole: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__()
        self._left, self._steps, self._whole = dict(seconds), len(seconds), whole
        self._planned_s, self._clock, self._start_s = sum(seconds.values()), clock, clock()
        self._said_s = -LOG_EVERY_S

    def emit(self, record: logging.LogRecord) -> None:
        """Count a finished job."""
        if getattr(record, "job_id", None) in self._left and str(getattr(record, "event", "")) == "job_finished":
            del self._left[record.job_id]
            now_s = self._clock()
            if sys.stderr.isatty() or now_s - self._said_s >= LOG_EVERY_S or not self._left:
                self._said_s = now_s
                print(self.text(now_s - self._start_s), file=sys.stderr, flush=True)

    def text(self, spent_s: float) -> str:
        """Where it is after `spent_s`."""
        left = sum(self._left.values())
        share = 1.0 - left / self._planned_s if self._planned_s else 1.0
        done = self._steps - len(self._left)
        filled = round(BAR_WIDTH * share)
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] "
        text = f"{bar * sys.stderr.isatty()}{done} of {self._steps} steps, {duration_text(spent_s)}"
        if not self._left:
            return text
        if share >= SURE_SHARE:
            return f"{text}, about {duration_text(spent_s * (1.0 - share) / share)} left"
        return f"{text}, about {duration_text(left)} left" if self._whole else text
