"""`plan`: GPUs, their cost and the files that run them, for a trace with its classes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from artifact.commands.progress import Line, announce
from artifact.commands.table import Verb
from artifact.latency.gpu_prices import load_prices
from artifact.planning.answer import plan
from artifact.planning.deployment import deployment
from artifact.planning.facts import facts
from artifact.planning.question import REQUESTS, Question
from artifact.planning.text import plan_text
from artifact.planning.traced import add_trace_options, traced
from artifact.results import tables
from artifact.runs.spec import LATENCY


def add_commands(verb: Verb) -> None:
    """Add `plan` to the command line."""
    own = verb("plan", run_plan)
    add_trace_options(own)
    own.add_argument("--qps", type=float, help="mean load, requests/s (default: the trace's own)")
    own.add_argument("--latency", "--card", default=LATENCY, help=f"latency card: model and GPU (default {LATENCY})")
    own.add_argument("--gpu-hour", type=float, help="USD for an hour of one GPU (default: of the price list)")
    own.add_argument("--prices", type=Path, help="price list, as YAML `GPU: USD`, before the one that ships")
    own.add_argument("--headroom", type=float, default=0.0, help="share of the load to spare, such as 0.2 (default 0)")
    own.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 (default 3)")
    own.add_argument("--requests", type=int, default=REQUESTS, help=f"most requests of a run (default {REQUESTS})")
    own.add_argument("--steady", action="store_true", help="a constant load of --qps, not the trace's own over time")
    own.add_argument("--without-tbt", action="store_true", help="count TTFT and TTLT alone, as the paper does")
    paper = "as the paper plans Table 4: --steady, --without-tbt, and no fleet is too small if its run ends in time"
    own.add_argument("--as-paper", action="store_true", help=paper)
    own.add_argument(
        "--cold-start", type=float, default=120.0, help="seconds that a replica takes to start (default 120)"
    )
    own.add_argument("--other-latency", help="card of the what-if line (default: the same model on another GPU)")
    own.add_argument("--model", help="what vLLM serves, in the files of --out (default: by the card)")
    own.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    own.add_argument("--json", action="store_true", help="print JSON")
    own.add_argument("--html", type=Path, help="file for a page with plots")
    own.add_argument("--out", type=Path, help="folder for the files that run it: configuration, command, manifest")


def question_of(options: argparse.Namespace) -> Question:
    """What the command line asks."""
    return Question(
        **traced(options),
        latency=options.latency,
        headroom=options.headroom,
        seeds=options.seeds,
        with_tbt=not (options.without_tbt or options.as_paper),
        steady=options.steady or options.as_paper,
        sustained=not options.as_paper,
        most_requests=options.requests,
        gpu_hour_usd=options.gpu_hour,
        prices=load_prices(options.prices),
        cold_start_s=options.cold_start,
        other_latency=options.other_latency,
        model=options.model,
    )


def run_plan(options: argparse.Namespace) -> None:
    """Plan, print, and write what was asked for."""
    question = question_of(options)
    found = plan(question, options.jobs, Line().say, announce)
    answer, files = facts(found), deployment(found)
    if options.html is not None:
        from artifact.planning.page import plan_page  # with matplotlib

        tables.write_text(options.html, plan_page(answer, files))
    for name, content in (files if options.out is not None else {}).items():
        tables.write_text(options.out / name, content)
    print(json.dumps(answer, indent=1) if options.json else plan_text(answer))
