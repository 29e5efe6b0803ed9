"""Figures, the report, the page of tables and the pipeline's timings as commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from artifact.commands.table import Verb
from artifact.results import tables
from artifact.results.failures import Incomplete
from artifact.workflow.timings import timings_text


def add_commands(verb: Verb) -> None:
    """Add all five to the command line."""
    one = verb("figure", figure)
    one.add_argument("name")
    one.add_argument("--results", type=Path, default=Path("results"))
    one.add_argument("--stamp", type=Path, help="file listing what was drawn")
    verb("figures", list_figures)
    page = verb("report", report)
    page.add_argument("--results", type=Path, default=Path("results"))
    page.add_argument("--servers", action="store_true", help="with the tables of vLLM's engine and of real servers")
    page.add_argument("--incomplete", type=Path, help="what a failed run did not make: a box says so in its place")
    page.add_argument("--stamp", type=Path, help="file that says that the report is complete")
    page.add_argument("--figures", nargs="+", help="figures that it holds (default: those of the default target)")
    page.add_argument("--name", default="report", help="its file's name (default report)")
    every = verb("tables", list_tables)
    every.add_argument("--page", type=Path, help="file to write it to: docs/TABLES.md")
    spent = verb("timings", timings)
    spent.add_argument("results", type=Path)


def figure(options: argparse.Namespace) -> None:
    """Draw one figure in all its variants, and its page."""
    from artifact.report.draw import render
    from artifact.report.page import write_figure_page

    paths = [*render(options.name, options.results), write_figure_page(options.name, options.results)]
    if options.stamp is not None:
        tables.write_text(options.stamp, "".join(f"{Path(p).name}\n" for p in paths))
    print("\n".join(str(p) for p in paths))


def list_figures(options: argparse.Namespace) -> None:
    """Every figure, and what it is drawn from."""
    from artifact.report.draw import listing

    print(listing())


def report(options: argparse.Namespace) -> None:
    """Write the report."""
    from artifact.report.report import write_report

    missing = Incomplete.read(options.incomplete) if options.incomplete else None
    print(write_report(options.results, options.figures, servers=options.servers, name=options.name, missing=missing))
    if options.stamp is not None:
        tables.write_text(options.stamp, "complete\n")


def list_tables(options: argparse.Namespace) -> None:
    """Every results table with its columns, as Markdown."""
    from artifact.results.schema_page import page

    if options.page is None:
        print(page(), end="")
    else:
        tables.write_text(options.page, page())


def timings(options: argparse.Namespace) -> None:
    """How long each part took, from the benchmark files Snakemake keeps."""
    print(timings_text(options.results))
