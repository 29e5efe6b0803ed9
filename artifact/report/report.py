"""results/report.html: one page with a summary, every figure by part of the paper, claims, notes and provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from artifact.claims.model import load_claims
from artifact.claims.text import counts_text
from artifact.claims.verify import Verdict, verify
from artifact.report.claims_section import link, section
from artifact.report.draw import figure_module
from artifact.report.page import box, drawings, fill, page, paragraph, table, text
from artifact.report.provenance import made_from
from artifact.results.failures import Failure, Incomplete, again
from artifact.results.frames import load_table, load_tables
from artifact.results.tables import write_text
from figures import FIGURES, PAPER_FIGURES, SERVER_FIGURES, differences, headline, style
from figures.gallery import by_part

TABLES = ("capacity", "summary", "cluster")
EVERYTHING = (*PAPER_FIGURES, *SERVER_FIGURES)
Frames = Mapping[str, pd.DataFrame]
Lacking = Mapping[str, tuple[Failure, ...]]  # why a table cannot be had, by its name


def write_report(
    results_dir: Path,
    figures: Sequence[str] | None = None,
    *,
    servers: bool = False,
    name: str = "report",
    missing: Incomplete | None = None,
) -> Path:
    """Write the page from results_dir/tables and the pictures in results_dir/figures, which `render` draws; its path.

    figures: those that it holds (none given: the default target's); servers: whether there are those of vLLM's
    engine and servers, too; else the page says why not. missing: what a failed run did not make; a box takes its
    place, and that of whatever else cannot be shown. Without it, raises ResultError for a missing table or picture,
    ValueError for a table without a column that is needed.
    """
    modules = {figure: figure_module(figure) for figure in (FIGURES if figures is None else figures)}
    own = {figure: figure_module(figure) for figure in (SERVER_FIGURES if servers else ())}
    tables, lacking = _tables([*TABLES, *_inputs(modules.values())], results_dir, missing)
    served, more = _tables(_inputs(own.values()), results_dir, missing)
    shown = partial(_or_box, missing, {**lacking, **more})
    verdicts, broken, problem = _verdicts(results_dir, missing)
    goodput, fleets = shown("Goodput", ["capacity"], _summary, tables), shown("GPUs", ["cluster"], _gpus, tables)
    about = paragraph(f"Claims: {counts_text(verdicts)}; with reasons below the figures.") if verdicts else ""
    parts = {"Summary": {"": goodput, "GPUs": fleets + about}}
    for part, names in by_part((*modules, *SERVER_FIGURES)):
        parts[part] = {
            figure: (
                shown(figure, figure_module(figure).INPUTS, drawings, figure, tables, results_dir)
                if figure in modules
                else shown(figure, figure_module(figure).INPUTS, _servers, figure, served, results_dir)
                if servers
                else _no_servers()
            )
            + link(verdicts, figure)
            for figure in names
        }
    figures_shown = [figure for pieces in parts.values() for figure in pieces]
    parts["Claims"] = {"": problem or section(verdicts, broken, figures_shown)}
    differs = "What differs from the paper"
    parts[differs] = {"": shown(differs, differences.INPUTS, _notes, tables)}
    parts["Provenance"] = {"": shown("Provenance", [], made_from, tables, served)}
    path = results_dir / f"{name}.html"
    write_text(path, page("Niyama: results", _head(missing) + _body(parts)))
    return path


def _verdicts(results_dir: Path, missing: Incomplete | None) -> tuple[list[Verdict], Mapping[str, str], Markup]:
    """Verdicts, what is wrong with tables, and after a failed run a box where there are no verdicts.

    ResultError without a manifest of the results.
    """
    try:
        verdicts, broken = verify(results_dir, load_claims())
    except Exception as error:
        if missing is None:
            raise
        why = missing.outputs.get("figures/Claims.txt") or [Failure(type(error).__name__, str(error), "")]
        return [], {}, box("Not made: Claims", why, again())
    return verdicts, broken, Markup()


def _inputs(modules: Iterable[Any]) -> list[str]:
    return [name for module in modules for name in module.INPUTS]


def _tables(names: Iterable[str], results_dir: Path, missing: Incomplete | None) -> tuple[Frames, Lacking]:
    """The tables; after a failed run those that are of it and whole, and why each other one is not there."""
    folder = results_dir / "tables"
    if missing is None:
        return load_tables(names, folder), {}
    tables, lacking = {}, {}
    for name in dict.fromkeys(names):
        path = folder / f"{name}.parquet"
        if why := missing.outputs.get(f"tables/{path.name}"):
            lacking[name] = why
            continue
        try:
            tables[name] = load_table(path)
        except Exception as error:  # whatever it is, all other tables are worth showing
            lacking[name] = (Failure(str(path), str(error), ""),)
    return tables, lacking


def _or_box(
    missing: Incomplete | None,
    lacking: Lacking,
    title: str,
    needed: Iterable[str],
    make: Callable[..., Markup],
    *arguments: Any,
) -> Markup:
    """A piece of the page, made of the tables `needed`; after a failed run a box where it cannot be shown."""
    if missing is None:
        return make(*arguments)
    why = missing.outputs.get(f"figures/{title}.txt") or [one for name in needed for one in lacking.get(name, ())]
    if not why:
        try:
            return make(*arguments)
        except Exception as error:  # whatever it is, all other pieces are worth showing
            why = [Failure(type(error).__name__, str(error), "")]
    return box(f"Not made: {title}", dict.fromkeys(why), again())


def _head(missing: Incomplete | None) -> Markup:
    """What the whole page lacks."""
    if missing is None:
        return Markup()
    return box("This report is not complete: some parts failed, and all others are below.", missing.failures, again())


def _body(parts: Mapping[str, Mapping[str, str]]) -> Markup:
    """The page's parts, each a mapping from heading ("" for none; a figure's name) to what is below it, and links."""
    listed = []
    for i, (title, pieces) in enumerate(parts.items()):
        own = [{"id": _id(heading), "title": _title(heading), "html": html} for heading, html in pieces.items()]
        listed.append({"id": f"part-{i}", "title": title, "pieces": own})
    return fill("parts", parts=listed)


def _title(heading: str) -> Markup:
    return figure_module(heading).TITLE if heading in EVERYTHING else heading


def _id(heading: str) -> Markup:
    return heading if heading in EVERYTHING else heading.lower().replace(" ", "-")


def _summary(tables: Frames) -> Markup:
    backend = style.backend(*tables.values())
    html = paragraph(
        f"Reproduction of Niyama / QoServe (arXiv 2503.22562; ASPLOS'26, doi 10.1145/3779212.3790206). "
        f"Backend: {backend}. Capacity is the load at which the worst class has 1 % of its requests violated."
    )
    html += paragraph(headline.caption(tables))
    for latency in tables["capacity"]["latency"].unique():
        html += Markup(f"<h3>Goodput, {text(latency)}</h3>\n") + table(headline.goodputs(tables, latency))
    return html


def _gpus(tables: Frames) -> Markup:
    return table(headline.gpus(tables))


def _notes(tables: Frames) -> Markup:
    items = "".join(f"<dt>{text(title)}</dt><dd>{text(note)}</dd>\n" for title, note in differences.notes(tables))
    return Markup(f"<dl>\n{items}</dl>\n")


def _no_servers() -> Markup:
    """Why there is no figure of vLLM's engine or of its servers."""
    why = "`servers=none` was asked for"
    if find_spec("vllm") is None:
        why = "vLLM is not installed; `make setup` installs it, and `snakemake --cores all` then makes this"
    return paragraph(f"Not made: {why}.")


def _servers(name: str, served: Frames, results_dir: Path) -> Markup:
    """A figure of vLLM's engine or of its servers, below what was not measured."""
    tables = {needed: served[needed] for needed in figure_module(name).INPUTS}
    failed = [failure for frame in tables.values() for failure in frame.attrs.get("failures", ())]
    boxes = [Failure(failure["part"], failure["reason"], "") for failure in failed]
    html = box("Not measured, or not wholly", boxes, again()) if boxes else Markup()
    return html + drawings(name, tables, results_dir)
