"""Command line: `python -m traces list | fetch | describe | convert`; the one reader of the environment."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from traces.catalog import Entry, find_entry, load_catalog
from traces.describing import describe, extras_in_words, span
from traces.download import fetch
from traces.errors import TraceError
from traces.layouts import ROLES, read_columns
from traces.lengths import Reading
from traces.trace import (
    DEFAULT_CACHE_DIR,
    LOCAL_DIR_VARIABLE,
    Trace,
    find_on_disk,
    load_trace,
    local_dir_from_env,
)

BAD_INPUT = 2
PIPED_COLUMNS = 200  # a pipe has no width of its own, and rows there must stay whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors become one line on stderr and exit status 2."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        options.run(options)
    except (TraceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m traces", description="Public LLM-serving traces.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--cache", type=Path, default=DEFAULT_CACHE_DIR, help="download folder (default: data)")
    shared.add_argument(
        "--local", type=Path, default=None, help=f"folder of your own copies (default: ${LOCAL_DIR_VARIABLE})"
    )
    listing = commands.add_parser("list", parents=[shared], help="the data sets, their licence, where they are")
    listing.set_defaults(run=_list)
    fetching = commands.add_parser("fetch", parents=[shared], help="download or import one data set")
    fetching.add_argument("name")
    fetching.add_argument("--from-file", type=Path, help="import this file instead of downloading")
    fetching.add_argument("--url", action="append", help="try this address instead (may be repeated)")
    fetching.set_defaults(run=_fetch)
    reading = _reading_options()
    describing = commands.add_parser("describe", parents=[shared, reading], help="what a trace, or a file, holds")
    describing.set_defaults(run=_describe)
    converting = commands.add_parser("convert", parents=[shared, reading], help="write a trace in our own format")
    converting.add_argument("out", type=Path, metavar="OUT", help="a .parquet, .jsonl, .jsonl.gz or .jsonl.zst file")
    converting.set_defaults(run=_convert)
    return parser


def _reading_options() -> argparse.ArgumentParser:
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        "name", metavar="TRACE", help="a name of `list`, a file, a folder of `datasets`, or hf:OWNER/NAME"
    )
    reading.add_argument("--columns", help=f"time=NAME,prompt=NAME,output=NAME,... for {', '.join(ROLES)}")
    reading.add_argument("--time-unit", help="unit of numeric times: s, ms, us or ns")
    reading.add_argument("--tokenizer", type=Path, help="folder of the tokenizer that counts a data set's texts")
    reading.add_argument("--no-download", action="store_true", help="never use the network")
    return reading


def _local_dir(options: argparse.Namespace) -> Path | None:
    return options.local if options.local is not None else local_dir_from_env()


def _list(options: argparse.Namespace) -> None:
    local_dir = _local_dir(options)
    table = Table(box=None, pad_edge=False)
    for header in ("name", "MB", "rows", "where", "synthetic"):
        table.add_column(header, no_wrap=True)
    table.add_column("licence", overflow="fold")
    for entry in load_catalog().values():
        size = "?" if entry.bytes is None else f"{entry.bytes / 1e6:.1f}"
        synthetic = "no" if entry.synthetic_name is None else "yes"
        where = _where(entry, local_dir, options.cache)
        table.add_row(entry.name, size, f"{entry.rows:,}", where, synthetic, entry.licence)
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table)


def _where(entry: Entry, local_dir: Path | None, cache_dir: Path) -> str:
    found = find_on_disk(entry, local_dir=local_dir, cache_dir=cache_dir)
    if found is not None:
        return {"local": "local folder", "download": "cache"}[found[1]]
    return "in the package" if entry.embedded is not None else "not here"


def _fetch(options: argparse.Namespace) -> None:
    print(fetch(find_entry(options.name), options.cache, from_file=options.from_file, urls=options.url))


def _loaded(options: argparse.Namespace) -> Trace:
    columns = {} if options.columns is None else read_columns(options.columns)
    return load_trace(
        options.name,
        local_dir=_local_dir(options),
        cache_dir=options.cache,
        download=not options.no_download,
        reading=Reading(columns, options.time_unit, options.tokenizer),
    )


def _describe(options: argparse.Namespace) -> None:
    trace = _loaded(options)
    facts = describe(trace)
    print(f"{facts['name']}: {facts['rows']:,} rows, source {facts['source']}")
    if trace.understood is not None:
        print(f"  {trace.understood}")
        print(f"  {trace.understood.rows:,} rows in the file, {len(trace):,} of them requests")
        if trace.understood.unused:
            print(
                f"  columns not used: {', '.join(trace.understood.unused)} (--columns class=NAME and so on takes one)"
            )
    if trace.arrival_s is not None:
        print(f"  {span(trace)}")
    for column in ("prompt_tokens", "output_tokens"):
        print(f"  {column:13s}", "  ".join(f"{key} {value:.1f}" for key, value in facts[column].items()))
    for line in extras_in_words(trace):
        print(f"  {line}")
    for note in (*trace.notes, f"licence {trace.licence}", f"cite {trace.citation}"):
        print(f"  {note}")


def _convert(options: argparse.Namespace) -> None:
    from traces.own_format import write_trace

    trace = _loaded(options)
    write_trace(trace, options.out)
    for line in filter(None, (trace.understood, *trace.notes)):
        print(f"{line}", file=sys.stderr)
    print(f"{options.out}: {len(trace):,} requests of {trace.name}")


if __name__ == "__main__":
    sys.exit(main())
