"""What commands and the pipeline say while they work; clocks are made up."""

import logging
import sys
from types import SimpleNamespace

import pytest

from artifact.__main__ import main
from artifact.commands import progress
from artifact.runs import cli as commands
from artifact.runs.spec import RunSpec
from artifact.servers.config import ServerForm
from artifact.workflow import costs


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (89, "89 s"), (600, "10 min"), (4800, "1 h 20 min")])
def test_durations_as_text(seconds, words):
    assert progress.duration_text(seconds) == words


def spec(seed, system="niyama"):
    return RunSpec(trace="azure-code-2023", system=system, load_qps=2.0, requests=10, seed=seed)


def test_a_log_gets_a_line_now_and_then_with_what_is_left(capsys):
    now = SimpleNamespace(s=0.0)
    line = progress.Line(lambda: now.s)
    for now.s in (0.0, 10.0, 31.0, 40.0, 62.0):
        line.say(f"at {now.s:g}", now.s / 124)
    assert capsys.readouterr().err == "at 31, 31 s, about 2 min left\nat 62, 62 s, about 62 s left\n"


def test_runs_of_a_known_number_and_searches_say_what_is_left(capsys, monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(progress.Line.__init__, "__defaults__", (lambda: now.s,))
    told = progress.run_started(total=4)
    told(spec(0))
    now.s = 60.0
    told(spec(1))
    assert capsys.readouterr().err == "run 2 of 4: niyama at 2 QPS, 60 s, about 3 min left\n"
    now.s = 0.0
    told = progress.run_started(searches=3)
    told(spec(0))
    now.s = 40.0
    told(spec(0))  # the same search
    now.s = 80.0
    told(spec(1))  # one of three is done
    assert capsys.readouterr().err == ("run 2: niyama at 2 QPS, 40 s\nrun 3: niyama at 2 QPS, 80 s, about 3 min left\n")


def test_the_first_compilation_is_said_once_and_only_that_of_the_scheduler(capsys, monkeypatch):
    from numba.core import event

    progress.announce_compilation()
    monkeypatch.setattr(progress, "said", [])

    def compiles(module):
        function = SimpleNamespace(__module__=module)
        with event.trigger_event("numba:compile", data={"dispatcher": SimpleNamespace(py_func=function)}):
            pass

    compiles("somebody.else")
    compiles(None)  # of a function that was made by `exec`
    assert capsys.readouterr().err == ""
    compiles("niyama.sim.replica")
    compiles("niyama.plan")
    assert capsys.readouterr().err == progress.COMPILING + "\n", "once in a process"


def test_a_single_request_has_one_format_and_compilation_is_no_part_of_the_speed(capsys, monkeypatch):
    order = []
    monkeypatch.setattr("artifact.runs.cli.warm_up_like", lambda spec, **_: order.append("warm"))
    real = commands.run
    monkeypatch.setattr("artifact.runs.cli.run", lambda *a, **k: order.append("timed") or real(*a, **k))
    trace = ["--trace", "azure-code-2023-synth", "--system", "niyama", "--load", "1"]
    assert main(["simulate", *trace, "--requests", "1"]) == 0
    assert order == ["warm", "timed"]
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("all"))
    cells = row.split()
    assert cells[3] == cells[4] and cells[5] == cells[6], "of one request, p50 and p99 are the same"


def test_ctrl_c_on_a_terminal_starts_a_line_of_its_own(capsys, monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("artifact.report.cli.timings", interrupted)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["timings", "."]) == 130
    assert capsys.readouterr().err.startswith("\ninterrupted")


def dag(*jobs):
    return SimpleNamespace(
        jobs=jobs,
        needrun=lambda job: True,
        jobid=lambda job: job.id,
        dependencies={job: job.needs for job in jobs},
    )


class Job:
    def __init__(self, number, rule, output, *needs):
        self.id, self.rule, self.output, self.needs = number, SimpleNamespace(name=rule), [output], needs


def test_a_tables_minutes_are_shared_by_its_parts():
    kernel = Job(0, "kernel", "r/kernel.txt")
    parts = [Job(n, "capacity", f"r/capacity/{n}.parquet", kernel) for n in (1, 2)]
    table = Job(3, "capacity_table", "r/tables/capacity.parquet", *parts)
    alone = Job(4, "predictor_accuracy", "r/tables/predictor_accuracy.parquet", kernel)
    server = Job(5, "server_sweep", "r/servers/short/niyama-0.parquet", kernel)
    found = costs.planned_s(dag(kernel, *parts, table, alone, server), {"capacity": 5, "predictor_accuracy": 2}, 90.0)
    step = costs.STEP_S
    assert found == {0: step, 1: step + 150, 2: step + 150, 3: step, 4: step + 120, 5: 90.0}
    assert costs.run_cycle_s(None, ServerForm(loads_qps_per_gpu=[1.0, 2.0], seconds=10)) == 60 + 2 * 30


def test_systems_in_turn_are_one_job_that_takes_the_time_of_all_their_cycles():
    turns = Job(0, "server_turns", "servers/full/in_turn.txt")
    cycles = [Job(i, "server_sweep", f"servers/full/a-{i}.parquet") for i in (1, 2)]
    found = costs.planned_s(dag(turns, *cycles), {}, 90.0)
    assert found == {0: 180.0, 1: costs.STEP_S, 2: costs.STEP_S}


def test_steps_tell_what_was_planned_and_then_what_is_left(capsys):
    now = SimpleNamespace(s=0.0)
    steps = costs.Steps({1: 60.0, 2: 300.0, 3: 240.0}, whole=True, clock=lambda: now.s)

    def finish(job, s):
        now.s = s
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
        record.event, record.job_id = "job_finished", job
        steps.emit(record)

    finish(1, 20.0)  # a tenth of the work: the plan is the better estimate
    finish(2, 200.0)
    finish(3, 210.0)
    assert capsys.readouterr().err == (
        "1 of 3 steps, 20 s, about 9 min left\n2 of 3 steps, 3 min, about 2 min left\n3 of 3 steps, 4 min\n"
    )
