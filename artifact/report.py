"""results/report.html: one page with every figure by part of the paper, the tables, notes and provenance."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from artifact.endings import INCOMPLETE_MANIFEST
from artifact.failures import Failure, Incomplete, again
from artifact.manifest import PATTERN, other_code, write_manifest
from artifact.page import box, drawings, page, paragraph, table, text
from artifact.render import figure_module, load_table, load_tables
from artifact.table_code import digest
from artifact.tables import ResultError, write_text
from artifact.verdicts.claims import load_claims
from artifact.verdicts.verify import verify
from artifact.verdicts.words import counts_text
from artifact.verdicts.words import table as claims_table
from figures import FIGURES, SERVER_FIGURES, differences, headline, style
from figures.gallery import by_part
from niyama import load_card

TABLES = ("capacity", "summary", "cluster")
RUN_COLUMNS = ("trace", "latency", "predictor", "system", "requests")  # of a table with a row per run or search
PACKAGES = ("niyama", "numpy", "numba", "scipy", "pandas", "pyarrow", "matplotlib", "seaborn")


class _Made(dict[str, pd.DataFrame]):
    """The tables that there are. ResultError for another."""

    def __missing__(self, name: str) -> pd.DataFrame:
        raise ResultError(f"table {name} was not made")


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
    inputs = [needed for module in modules.values() for needed in module.INPUTS]
    tables = _tables([*TABLES, *inputs], results_dir, missing)
    shown = partial(_or_box, missing)
    goodput, fleets = shown("Goodput", _summary, tables), shown("GPUs", _gpus, tables)
    parts = {"Summary": {"": goodput, "GPUs": fleets}, "Claims": {"": shown("Claims", _claims, results_dir)}}
    parts["What differs from the paper"] = {"": shown("What differs from the paper", _notes, tables)}
    for part, own in by_part((*modules, *SERVER_FIGURES)):
        parts[part] = {
            figure_module(figure).TITLE: (
                shown(figure, drawings, figure, tables, results_dir)
                if figure in modules
                else shown(figure, _servers, figure, results_dir, servers)
            )
            for figure in own
        }
    parts["Provenance"] = {"": shown("Provenance", _provenance, tables)}
    path = results_dir / f"{name}.html"
    write_text(path, page("Niyama: results", _head(missing) + _body(parts)))
    return path


def _tables(names: Iterable[str], results_dir: Path, missing: Incomplete | None) -> dict[str, pd.DataFrame]:
    """The tables; after a failed run those that there are, with a manifest of them where it made none."""
    folder = results_dir / "tables"
    if missing is None:
        return load_tables(names, folder)
    there = [path for name in dict.fromkeys(names) if (path := folder / f"{name}.parquet").exists()]
    if not list(results_dir.glob(PATTERN)):
        write_manifest(results_dir, results_dir / INCOMPLETE_MANIFEST, there)
    return _Made({path.stem: load_table(path) for path in there})


def _or_box(missing: Incomplete | None, title: str, make: Callable[..., str], *arguments: Any) -> str:
    """A piece of the page; after a failed run a box in the place of one that is missing or cannot be shown."""
    if missing is None:
        return make(*arguments)
    if title in missing.figures:
        return box(f"Not made: {title}", missing.figures[title], again())
    try:
        return make(*arguments)
    except Exception as error:  # whatever it is, all other pieces are worth showing
        return box(f"Not made: {title}", [Failure(type(error).__name__, str(error), "")], again())


def _head(missing: Incomplete | None) -> str:
    """What the whole page lacks."""
    if missing is None:
        return ""
    return box("This report is not complete: some parts failed, and all others are below.", missing.failures, again())


def _body(parts: Mapping[str, Mapping[str, str]]) -> str:
    """The page's parts, each a mapping from heading ("" for none) to what is below it, and links to all of them."""
    links, body = "", ""
    for i, (title, pieces) in enumerate(parts.items()):
        links += f'<li><a href="#part-{i}">{text(title)}</a>'
        body += f'<h2 id="part-{i}">{text(title)}</h2>\n'
        for k, (heading, html) in enumerate(pieces.items()):
            if heading:
                links += f' · <a href="#part-{i}-{k}">{text(heading)}</a>'
                body += f'<h3 id="part-{i}-{k}">{text(heading)}</h3>\n'
            body += f"{html}\n"
        links += "</li>\n"
    return f"<nav><ul>\n{links}</ul></nav>\n{body}"


def _summary(tables: Mapping[str, pd.DataFrame]) -> str:
    backend = style.backend(*tables.values())
    html = paragraph(
        f"Reproduction of Niyama / QoServe (arXiv 2503.22562; ASPLOS'26, doi 10.1145/3779212.3790206). "
        f"Backend: {backend}. Capacity is the load at which the worst class has 1 % of its requests violated."
    )
    html += paragraph(headline.caption(tables))
    for latency in tables["capacity"]["latency"].unique():
        html += f"<h3>Goodput, {text(latency)}</h3>\n" + table(headline.goodputs(tables, latency))
    return html


def _gpus(tables: Mapping[str, pd.DataFrame]) -> str:
    return table(headline.gpus(tables))


def _claims(results_dir: Path) -> str:
    """The claims table. ResultError without a manifest of the results."""
    verdicts, broken = verify(results_dir, load_claims())
    html = paragraph(
        f"{counts_text(verdicts)}. Measured: mean over seeds [95 % interval]; it decides. ✗: another case in which the "
        "claim would fail. What does not reproduce stays listed, with the likely reason."
    )
    html += "".join(paragraph(f"BROKEN {text}") for text in broken.values())
    return html + table(claims_table(verdicts).drop(columns=["printed in", "cost"]))


def _notes(tables: Mapping[str, pd.DataFrame]) -> str:
    items = "".join(f"<dt>{text(title)}</dt><dd>{text(note)}</dd>\n" for title, note in differences.notes(tables))
    return f"<dl>\n{items}</dl>\n"


def _servers(name: str, results_dir: Path, ran: bool) -> str:
    """A figure of vLLM's engine or of its servers, or why there is none."""
    if not ran:
        why = "`servers=none` was asked for"
        if find_spec("vllm") is None:
            why = "vLLM is not installed; `make setup` installs it, and `snakemake --cores all` then makes this"
        return paragraph(f"Not made: {why}.")
    tables = load_tables(figure_module(name).INPUTS, results_dir / "tables")
    failed = [failure for frame in tables.values() for failure in frame.attrs.get("failures", ())]
    boxes = [Failure(failure["part"], failure["reason"], "") for failure in failed]
    html = box("Not measured, or not wholly", boxes, again()) if boxes else ""
    return html + drawings(name, tables, results_dir)


def _provenance(tables: Mapping[str, pd.DataFrame]) -> str:
    html = "<h3>Traces</h3>\n" + table(_traces(tables))
    html += "<h3>Runs</h3>\n" + table(_runs(tables))
    html += "<h3>Latency models</h3>\n" + table(_cards(tables))
    packages = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    about = ", ".join(f"{name} {found}" for name, found in packages.items())
    html += "<h3>Code</h3>\n" + table(_code(tables))
    schema = sorted({str(frame.attrs.get("schema_version", "not recorded")) for frame in tables.values()})
    return html + "<h3>Versions</h3>\n" + paragraph(f"{about}; tables of schema version {', '.join(schema)}.")


def _code(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The code that each table was made by: one hash of all modules it depends on, and whether they are still so."""
    rows = []
    for name, frame in tables.items():
        code = frame.attrs.get("code")
        differs = other_code(frame.attrs) or "as in this checkout"
        rows.append({"table": name, "code": digest(code) if code else "–", "now": differs})
    return pd.DataFrame(rows)


def _traces(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every trace in the tables, with what their metadata says of its source."""
    known = {}
    for frame in tables.values():
        known |= frame.attrs.get("traces", {})
        one = frame.attrs.get("trace")
        known |= {one["trace"]: one} if isinstance(one, Mapping) and "trace" in one else {}
    names = {str(name) for frame in tables.values() if "trace" in frame for name in frame["trace"].unique()}
    rows = []
    for name in style.in_order(names, style.TRACES):
        about = known.get(name, {})
        guess = "synthetic" if name.endswith(style.SYNTHETIC) else "not recorded"
        rows.append(
            {
                "trace": name,
                "source": about.get("source", guess),
                "rows": style.number_text(about.get("rows"), 0),
                "sha256": (about.get("sha256") or "–")[:16],
                "licence": about.get("licence", "–"),
                "notes": "; ".join([*about.get("notes", ()), about.get("citation", "")]).strip("; "),
            }
        )
    return pd.DataFrame(rows)


def _runs(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Run lengths and seeds of each experiment."""
    rows = []
    capacities = tables["capacity"].groupby("run_length") if "capacity" in tables else ()
    for length, own in sorted(capacities, reverse=True, key=lambda pair: pair[0]):
        rows.append({"experiment": f"capacity, {length} runs", **_counts(own, own["seeds"])})
    for name, frame in tables.items():
        if name != "capacity" and set(RUN_COLUMNS) <= set(frame.columns):
            seeds = frame["seeds"] if "seeds" in frame else [frame["seed"].nunique()]
            rows.append({"experiment": name, **_counts(frame, seeds)})
    return pd.DataFrame(rows)


def _counts(frame: pd.DataFrame, seeds: Iterable[int]) -> dict[str, str]:
    return {
        "requests per run": style.counted(frame["requests"]),
        "seeds": style.counted(seeds),
        "predictors": ", ".join(sorted(set(frame["predictor"]))),
        "systems": ", ".join(style.look(name).label for name in style.in_order(frame["system"], style.SYSTEMS)),
    }


def _cards(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    own = (frame["latency"].unique() for frame in tables.values() if "latency" in frame)
    names = dict.fromkeys(str(name) for unique in own for name in unique)
    cards = [load_card(name) for name in names]
    fields = ("name", "model", "hardware", "engine", "source", "error")
    return pd.DataFrame([{field: getattr(card, field) for field in fields} for card in cards])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
