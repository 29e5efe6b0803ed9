"""All commands of `python -m artifact`, and the parser that reads them.

A room's commands are functions in one module of it, whose `add_commands` adds their options. That module is imported
only when one of its commands is asked for: `--help` and each short command start at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

#: Makes the parser of a command, of its name and of the function that runs it.
Verb = Callable[[str, Callable[[argparse.Namespace], int | None]], argparse.ArgumentParser]

#: Module -> its commands, and what each does.
COMMANDS = {
    "artifact.runs.cli": {
        "simulate": "Simulate one system at one load.",
    },
    "artifact.experiments.cli": {
        "capacity": "Find the load at which the worst class crosses 1 %.",
        "compile": "Compile the kernel into its cache.",
        "trace": "Get a trace and describe it.",
        "cluster": "Fleets on one trace.",
        "grid": "The runs of one entry of `grids` on one trace.",
        "search": "The searches of one entry of `searches` on one trace.",
        "disaggregated": "Goodput of prefill nodes on one trace.",
        "overload": "A square wave of load on one trace.",
        "panel": "One panel of the section `panels`.",
        "merge": "Join tables of one kind.",
    },
    "artifact.planning.cli": {
        "plan": "Plan: how many GPUs a trace with its classes needs, in silos or shared, and what they cost.",
    },
    "artifact.score.cli": {
        "score": "Score a policy: the whole suite beside its peers, or two scorecards compared, or the leaderboard."
    },
    "artifact.explore.cli": {
        "explore": "Serve a page to play with: GPUs, cost and violations for a trace, classes and a load."
    },
    "artifact.report.cli": {
        "figure": "Draw one figure from the tables.",
        "figures": "List the figures, and what each is drawn from.",
        "tables": "List the results tables, with unit, type and meaning of each column.",
        "report": "Write the HTML report of figures that are drawn.",
        "timings": "Say how long each part of the pipeline took.",
    },
    "artifact.claims.cli": {
        "verify": "Check every claim of the paper against the results.",
        "manifest": "List tables with their checksums, for `verify`.",
    },
    "artifact.servers.cli": {
        "serve": "For experiments: bring up vLLM servers, with a router for several. Else: docs/DEPLOYING.md.",
        "load": "Replay a workload file, open loop, on servers that are up.",
        "crosscheck": "Compare our client with `vllm bench serve` on one server.",
    },
    "artifact.servers.sweep_cli": {
        "server-sweep": "Measure one system of the server sweep: one start of its servers, all loads.",
        "server-turns": "Measure all systems of the server sweep in turn at each load, their servers running at once.",
        "server-simulated": "Simulate what the server sweep measures.",
        "server-table": "Join measured and simulated parts.",
    },
    "artifact.engine.sweep": {
        "engine-sweep": "Run one system of the server sweep in virtual time: vLLM's engine in process, without servers."
    },
    "artifact.engine.operators": {
        "engine-operators": "The operators' scenario on vLLM's engine in virtual time: one replica, no gateway."
    },
    "artifact.latency.engine_profile": {"profile": "Measure an engine's step times by the shape of the batch."},
    "artifact.latency.card_list": {"cards": "List the latency cards: hardware, engine, source, error; or show one."},
    "artifact.latency.cli": {
        "fit": "Fit latency models to a profile and write their cards, with cross-validated errors.",
        "kernel-profile": "Write the steps of a configuration, summed from measured kernels.",
        "predictor-accuracy": "Errors of the paper's, the artifact's and our predictor on held-out steps and chunks.",
    },
    "artifact.engine.cli": {
        "replay": "Re-run a decision log through the kernel: status 0 all alike, 1 diverged, 2 not a log.",
        "fidelity": "Compare the simulator with vLLM on an emulated GPU in virtual time: 1 when out of tolerance.",
    },
    "benchmarks.cli": {
        "bench": "Measure the simulator and the decision kernel.",
        "overhead": "Measure what planning adds to vLLM's schedule(); nothing else may run.",
    },
    "artifact.vllm_suite.cli": {"vllm-suite": "Run vLLM's own scheduler tests against Niyama's scheduler classes."},
}


#: Commands' names of earlier versions, and of today.
RENAMED = {"server-twins": "server-simulated", "sweep": "grid summary", "capacities": "search capacity"}


def parser(modules: Collection[str] = COMMANDS.keys()) -> argparse.ArgumentParser:
    """Knows every command by name, and the options of those in `modules`."""
    found = argparse.ArgumentParser(
        prog="python -m artifact", description="One command per verb; `--help` on each says what it takes."
    )
    verbs = found.add_subparsers(required=True, metavar="COMMAND")
    for module, texts in COMMANDS.items():
        if module in modules:
            import_module(module).add_commands(partial(_verb, verbs, texts))
        else:
            for name, text in texts.items():
                verbs.add_parser(name, help=_escaped(text))
    return found


def modules_of(command: str | None) -> list[str]:
    """The module that has the command; none where there is no such command."""
    return [module for module, texts in COMMANDS.items() if command in texts]


def _verb(verbs: Any, texts: dict[str, str], name: str, run: Callable[..., int | None]) -> argparse.ArgumentParser:
    made = verbs.add_parser(name, help=_escaped(texts[name]), description=texts[name])
    made.set_defaults(run=run, command=name)
    made.register("type", Path, _path)
    return made


def _escaped(text: str) -> str:
    """For argparse, which fills in what `%` stands before; not in a description."""
    return text.replace("%", "%%")


def _path(text: str) -> Path:
    """Of an option: an empty one, which is often a variable that is not set, would be the folder one is in."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or a folder")
    return Path(text)
