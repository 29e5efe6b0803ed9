"""Tables in, figures out: results/tables/*.parquet -> results/figures/NAME-VARIANT.{png,pdf} and NAME.{md,csv}."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType

from artifact.results.frames import load_tables, markdown
from artifact.results.tables import write_text
from figures import PAPER_FIGURES, SERVER_FIGURES, style
from figures.gallery import by_part


def figure_module(name: str) -> ModuleType:
    """The module of figures/ called `name`; a ValueError lists the known ones."""
    known = (*PAPER_FIGURES, *SERVER_FIGURES)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"figure {name!r} is unknown{hint}; use one of {', '.join(known)}")
    return import_module(f"figures.{name}")


def render(figure_name: str, results_dir: Path) -> list[Path]:
    """Draw every variant of a figure that the tables hold, and write its table if it has one; the paths written.

    Raises ValueError for an unknown figure or a table without a column it needs, ResultError for a missing table.
    """
    module = figure_module(figure_name)
    tables = load_tables(module.INPUTS, results_dir / "tables")
    folder = results_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for variant in module.variants(tables):
        paths += style.save(module.draw(tables, variant), folder / f"{figure_name}-{variant.slug}")
    if paths and hasattr(module, "table"):
        numbers, text = folder / f"{figure_name}.csv", folder / f"{figure_name}.md"
        write_text(numbers, module.table(tables).to_csv(index=False, float_format="%.6g"))
        write_text(text, markdown(module.text_table(tables)))
        paths += [numbers, text]
    return paths


def listing() -> str:
    """Every figure by part of the paper: name, title, tables that it is drawn from."""
    everything = (*PAPER_FIGURES, *SERVER_FIGURES)
    titles = {name: figure_module(name).TITLE for name in everything}
    widths = [max(map(len, column)) for column in (titles, titles.values())]
    lines = []
    for part, names in by_part(everything):
        lines.append(part)
        for name in names:
            inputs = ", ".join(figure_module(name).INPUTS)
            lines.append(f"  {name:{widths[0]}s}  {titles[name]:{widths[1]}s}  {inputs}")
    return "\n".join(lines)
