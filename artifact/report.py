"""results/report.html: one self-contained page with every figure, the tables, notes and provenance.

Nothing in it is loaded from elsewhere and nothing says when it was made: the same tables give the same page.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from artifact.render import figure_module, load_tables
from artifact.tables import write_text
from figures import FIGURES, SERVER_FIGURES, differences, headline, style
from niyama import load_card

TABLES = ("capacity", "summary", "cluster")
RUN_COLUMNS = ("trace", "latency", "predictor", "system", "requests")  # of a table with a row per run or search
PACKAGES = ("niyama", "numpy", "numba", "scipy", "pandas", "pyarrow", "matplotlib", "seaborn")
CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #222; background: #fff;
  max-width: 68rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid #ddd; }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: #0072B2; }
figure { margin: 1.5rem 0 2rem; break-inside: avoid; } figure img { max-width: 100%; height: auto; }
figure.narrow { display: inline-block; width: 28rem; max-width: 48%; margin-right: 1%; vertical-align: top; }
figcaption, .about { color: #555; font-size: .9rem; max-width: 56rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .82rem; margin: .6rem 0 1.2rem; }
th, td { text-align: left; padding: .22rem .6rem; border-bottom: 1px solid #e5e5e5; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { background: #f6f6f6; } tr { break-inside: avoid; }
dt { font-weight: 600; margin-top: .7rem; } dd { margin: 0 0 0 1rem; }
summary { cursor: pointer; color: #0072B2; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } nav { display: none; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; } }
"""


def write_report(
    results_dir: Path, figures: Sequence[str] | None = None, *, servers: bool = False, name: str = "report"
) -> Path:
    """Draw the figures (none given: the default target's) from results_dir/tables and write the page; its path.

    servers: whether results_dir/tables has the table of real servers; without it the page says that they were left out.
    Raises ResultError for a missing table, ValueError for a table without a column that is needed.
    """
    modules = {figure: figure_module(figure) for figure in (FIGURES if figures is None else figures)}
    inputs = [table for module in modules.values() for table in module.INPUTS]
    tables = load_tables([*TABLES, *inputs], results_dir / "tables")
    parts = {"Summary": _summary(tables), "What differs from the paper": _notes(tables)}
    parts |= {module.TITLE: _figure(figure, tables) for figure, module in modules.items()}
    parts |= {
        figure_module(figure).TITLE: _servers(figure, results_dir / "tables" if servers else None)
        for figure in SERVER_FIGURES
    }
    parts["Provenance"] = _provenance(tables)
    path = results_dir / f"{name}.html"
    write_text(path, _page(parts))
    return path


def _page(parts: Mapping[str, str]) -> str:
    anchors = {title: f"part-{i}" for i, title in enumerate(parts)}
    links = "".join(f'<a href="#{anchor}">{_text(title)}</a> ' for title, anchor in anchors.items())
    body = "".join(f'<h2 id="{anchors[title]}">{_text(title)}</h2>\n{html}\n' for title, html in parts.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Niyama: results</title>\n<style>{CSS}</style>\n</head>\n<body>\n<h1>Niyama: results</h1>\n"
        f"<nav>{links}</nav>\n{body}</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Escaped text. Addresses lose their scheme, so that a page without links to elsewhere is easy to check."""
    return escape(str(value).replace("https://", "").replace("http://", ""))


def _paragraph(text: str) -> str:
    return f'<p class="about">{_text(text)}</p>\n'


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in frame.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n" for row in frame.itertuples(index=False)
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'


def _summary(tables: Mapping[str, pd.DataFrame]) -> str:
    backend = style.backend(*tables.values())
    html = _paragraph(
        f"Reproduction of Niyama / QoServe (arXiv 2503.22562; ASPLOS'26, doi 10.1145/3779212.3790206). "
        f"Backend: {backend}. Capacity is the load at which the worst class has 1 % of its requests violated."
    )
    html += _paragraph(headline.caption(tables))
    for latency in tables["capacity"]["latency"].unique():
        html += f"<h3>Goodput, {_text(latency)}</h3>\n" + _table(headline.goodputs(tables, latency))
    return html + "<h3>GPUs</h3>\n" + _table(headline.gpus(tables))


def _notes(tables: Mapping[str, pd.DataFrame]) -> str:
    items = "".join(f"<dt>{_text(title)}</dt><dd>{_text(text)}</dd>\n" for title, text in differences.notes(tables))
    return f"<dl>\n{items}</dl>\n"


def _figure(name: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """All variants of a figure with their captions, and its table, folded."""
    module = figure_module(name)
    html = ""
    for variant in module.variants(tables):
        figure = module.draw(tables, variant)
        image = f"data:image/png;base64,{base64.b64encode(style.image_bytes(figure, 'png')).decode()}"
        label = f"{name}-{variant.slug}"
        width = round(figure.get_figwidth() * 130)
        kind = ' class="narrow"' if figure.get_figwidth() < style.DOUBLE_IN / 2 else ""
        html += (
            f'<figure id="{_text(label)}"{kind}><img width="{width}" alt="{_text(label)}" src="{image}">'
            f"<figcaption>{_text(module.caption(tables, variant))}</figcaption></figure>\n"
        )
    if hasattr(module, "text_table"):
        html += f"<details open><summary>Table</summary>{_table(module.text_table(tables))}</details>\n"
    return html


def _servers(name: str, folder: Path | None) -> str:
    """A figure of real servers, or why there is none."""
    if folder is None:
        return _paragraph(
            "Left out: no real server ran, because vLLM is not installed here or `servers=none` was asked for. "
            "Everything above is simulation."
        )
    return _figure(name, load_tables(figure_module(name).INPUTS, folder))


def _provenance(tables: Mapping[str, pd.DataFrame]) -> str:
    html = "<h3>Traces</h3>\n" + _table(_traces(tables))
    html += "<h3>Runs</h3>\n" + _table(_runs(tables))
    html += "<h3>Latency models</h3>\n" + _table(_cards(tables))
    packages = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    about = ", ".join(f"{name} {found}" for name, found in packages.items())
    schema = sorted({str(frame.attrs.get("schema_version", "not recorded")) for frame in tables.values()})
    return html + "<h3>Versions</h3>\n" + _paragraph(f"{about}; tables of schema version {', '.join(schema)}.")


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
    capacity = tables["capacity"]
    rows = []
    for length, own in sorted(capacity.groupby("run_length"), reverse=True, key=lambda pair: pair[0]):
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
    fields = ("name", "model", "hardware", "source", "error")
    return pd.DataFrame([{field: getattr(card, field) for field in fields} for card in cards])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
