"""What the command line says of a trace: its file and columns, the rule for requests that are too long, its classes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from artifact.commands.progress import announce
from artifact.config import ConfigError
from artifact.runs.options import about
from artifact.runs.sources import trace
from artifact.runs.spec import PAPER_MIX, load_classes
from niyama import load_card
from niyama.state import KV_BLOCK_TOKENS
from traces import Reading, TooLong, Trace, classes_of, read_columns
from traces.replay import cut

FEW_ROWS = 1_000


def add_trace_options(parser: argparse.ArgumentParser) -> None:
    """Those that say what arrives."""
    parser.add_argument("--trace", required=True, help=about("trace"))
    parser.add_argument("--columns", help=f"{about('columns')}: time=NAME,prompt=NAME,output=NAME,class=NAME,...")
    parser.add_argument("--time-unit", help=about("time_unit"))
    parser.add_argument("--tokenizer", type=Path, help=about("tokenizer"))
    parser.add_argument("--too-long", choices=get_args(TooLong), default="refuse", help=about("too_long"))
    parser.add_argument("--classes", type=Path, help="QoS classes, as a YAML list; none: the paper's Table 3")
    parser.add_argument(
        "--without", action="append", default=[], metavar="CLASS", help="leave a class and its requests out of the plan"
    )


def traced(options: argparse.Namespace) -> dict[str, Any]:
    """The fields `trace`, `classes`, `class_of_row` and `qps` of a question. ConfigError or TraceError."""
    columns = {} if options.columns is None else read_columns(options.columns)
    source = trace(options.trace, reading=Reading(columns, options.time_unit, options.tokenizer))
    if source.understood is not None:
        announce(f"{source.name}: {'; '.join([str(source.understood), *source.notes])}")
    source = _fitting(
        source, load_card(options.latency).kv_tokens // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS, options.too_long
    )
    if len(source) < FEW_ROWS:
        announce(f"warning: {source.name} has only {len(source)} rows: a plan repeats their lengths and times")
    classes = load_classes(options.classes) if options.classes else PAPER_MIX
    rules = {c.name: c.when for c in classes if c.when is not None}
    codes = classes_of(source, [c.name for c in classes], rules)
    if codes is not None:
        shares = np.bincount(codes, minlength=len(classes)) / len(codes)
        classes = tuple(c.model_copy(update={"share": float(s)}) for c, s in zip(classes, shares, strict=True))
    found = {"trace": source, "classes": classes, "class_of_row": codes, "qps": options.qps}
    return _without(found, options.without) if options.without else found


def _without(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The fields of the question without these classes: their requests, and their part of the load, are not there."""
    classes, codes, source = found["classes"], found["class_of_row"], found["trace"]
    known = [c.name for c in classes]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--without is {unknown[0]!r}; the classes are {', '.join(known)}")
    kept = [i for i, name in enumerate(known) if name not in names]
    share = sum(classes[i].share for i in kept)
    if not share > 0:
        raise ConfigError(f"--without {', '.join(names)} leaves no requests; leave fewer classes out")
    own = tuple(classes[i].model_copy(update={"share": classes[i].share / share}) for i in kept)
    announce(f"without {', '.join(names)}: {1 - share:.1%} of the requests are not planned for")
    if codes is None:  # which request is of which class is drawn: all lengths stay, and the load is less
        qps = found["qps"] if found["qps"] is not None else _own_qps(source)
        return found | {"classes": own, "qps": None if qps is None else qps * share}
    rows = np.flatnonzero(np.isin(codes, kept))
    place = np.full(len(known), -1)
    place[kept] = np.arange(len(kept))
    qps = None if found["qps"] is None else found["qps"] * share
    return {"trace": _rows_of(source, rows), "classes": own, "class_of_row": place[codes[rows]], "qps": qps}


def _own_qps(source: Trace) -> float | None:
    times = source.arrival_s
    span_s = 0.0 if times is None else float(times[-1] - times[0])
    return len(source) / span_s if span_s > 0 else None


def _rows_of(source: Trace, rows: np.ndarray) -> Trace:
    """The trace with these of its rows."""
    times = source.arrival_s
    lengths = {name: getattr(source, name)[rows] for name in ("prompt_tokens", "output_tokens")}
    return replace(source, **lengths, arrival_s=None if times is None else times[rows], extras=source.extras.take(rows))


def _fitting(source: Trace, longest: int, too_long: str) -> Trace:
    """The trace without what a replica's KV cache cannot hold, or with it cut."""
    long = source.prompt_tokens.astype(np.int64) + source.output_tokens > longest
    if not long.any():
        return source
    what = f"{source.name}: {np.count_nonzero(long):,} of {len(source):,} requests are longer than the KV cache"
    if too_long == "refuse":
        raise ConfigError(f"{what} ({longest:,} tokens); say --too-long drop or --too-long truncate")
    announce(f"{what} ({longest:,} tokens): {'dropped' if too_long == 'drop' else 'truncated'}")
    if too_long == "truncate":
        prompt, output = cut(source.prompt_tokens, source.output_tokens, longest)
        return replace(source, prompt_tokens=prompt, output_tokens=output)
    rows = np.flatnonzero(~long)
    if not len(rows):
        raise ConfigError(f"{what}: none is left; take a replica with more KV")
    return _rows_of(source, rows)
