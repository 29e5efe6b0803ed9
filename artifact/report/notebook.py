"""Figures in a notebook: a group's figures with their captions, from tables on disk, without running anything."""

from __future__ import annotations

from pathlib import Path

from IPython.display import Image, Markdown, display

from artifact.report.draw import figure_module
from artifact.results.frames import load_table
from figures import gallery, style

REFERENCE = Path(__file__).parents[1] / "reference"
SUBFOLDERS = ("tables", "servers")  # the reference keeps what real servers gave apart
SHOWN_PIXELS_PER_INCH = 110


def table_path(results: Path, name: str) -> Path | None:
    """Where a results folder has the table; None where it has not."""
    paths = (results / folder / f"{name}.parquet" for folder in SUBFOLDERS)
    return next((path for path in paths if path.exists()), None)


def show(group: str, results: Path = REFERENCE, every_variant: bool = False) -> None:
    """Draw each figure of the group below the cell, with its caption; a line for one whose table is not there.

    every_variant: every trace and latency model, not only the first. ValueError for an unknown group or a table that
    lacks a column, ResultError for one that cannot be read.
    """
    for name in gallery.group_figures(group):
        _show_figure(name, results, every_variant)


def _show_figure(name: str, results: Path, every_variant: bool) -> None:
    module = figure_module(name)
    display(Markdown(f"### {module.TITLE}"))
    paths = {table: table_path(results, table) for table in module.INPUTS}
    missing = [table for table, path in paths.items() if path is None]
    if missing:
        targets = " ".join(f"results/tables/{table}.parquet" for table in missing)
        print(f"{name}: {results.name}/ has no table {', '.join(missing)}; `snakemake --cores all {targets}` makes it")
        return
    tables = {table: load_table(path) for table, path in paths.items()}
    variants = module.variants(tables)
    for variant in variants if every_variant else variants[:1]:
        figure = module.draw(tables, variant)
        width = round(figure.get_figwidth() * SHOWN_PIXELS_PER_INCH)
        display(Image(style.image_bytes(figure, "png"), width=width), Markdown(module.caption(tables, variant)))
    if len(variants) > 1 and not every_variant:
        print(f"{name}: 1 of {len(variants)} drawings; the others: {', '.join(v.slug for v in variants[1:])}")
