"""Command line: `python -m traces list | fetch NAME | describe NAME`; the one reader of the environment."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from traces.catalog import Entry, find_entry, load_catalog
from traces.download import fetch
from traces.errors import TraceError
from traces.trace import (
    DEFAULT_CACHE_DIR,
    LOCAL_DIR_VARIABLE,
    describe,
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
    describing = commands.add_parser("describe", parents=[shared], help="rows and length percentiles of one trace")
    describing.add_argument("name")
    describing.add_argument("--no-download", action="store_true", help="never use the network")
    describing.set_defaults(run=_describe)
    return parser


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


def _describe(options: argparse.Namespace) -> None:
    trace = load_trace(
        options.name, local_dir=_local_dir(options), cache_dir=options.cache, download=not options.no_download
    )
    facts = describe(trace)
    print(f"{facts['name']}: {facts['rows']:,} rows, source {facts['source']}")
    for column in ("prompt_tokens", "output_tokens"):
        print(f"  {column:13s}", "  ".join(f"{key} {value:.1f}" for key, value in facts[column].items()))
    for note in (*trace.notes, f"licence {trace.licence}", f"cite {trace.citation}"):
        print(f"  {note}")


if __name__ == "__main__":
    sys.exit(main())
