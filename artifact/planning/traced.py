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


def traced(options: argparse.Namespace) -> dict[str, Any]:
    """The fields `trace`, `classes` and `class_of_row` of a question. ConfigError or TraceError."""
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
    return {"trace": source, "classes": classes, "class_of_row": codes}


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
    times = source.arrival_s
    lengths = {name: getattr(source, name)[rows] for name in ("prompt_tokens", "output_tokens")}
    return replace(source, **lengths, arrival_s=None if times is None else times[rows], extras=source.extras.take(rows))
