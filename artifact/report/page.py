"""HTML of our own: pages that hold everything they show, and the parts they are made of (artifact/report/templates).

Nothing in a page is loaded from elsewhere and nothing says when it was made: the same tables give the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from artifact.report.draw import figure_module
from artifact.results.failures import Failure
from artifact.results.frames import load_tables
from artifact.results.tables import ResultError, write_text
from figures import style
from figures.frames import Variant

TEMPLATES = Path(__file__).with_name("templates")
PIXELS_PER_INCH = 130  # of a figure on a page
SENTENCE_LENGTH = 105  # characters; a longer cell is prose
SHORT_LENGTH = 12  # a cell as short as this does not break: 5-3-3


@cache
def _templates() -> Environment:
    options = {"trim_blocks": True, "lstrip_blocks": True, "autoescape": True, "keep_trailing_newline": True}
    return Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, finalize=text, **options)


def fill(template: str, **values: Any) -> Markup:
    """The template filled with these values; text in them is escaped, HTML of `fill` is not again."""
    return Markup(_templates().get_template(f"{template}.html").render(**values))


def page(title: str, body: str) -> str:
    """A complete page. body: HTML."""
    css = Markup((TEMPLATES / "style.css").read_text())
    return str(fill("page", title=title, css=css, body=Markup(body)))


def text(value: object) -> Markup:
    """Escaped text. Addresses lose their scheme, so that a page without links to elsewhere is easy to check."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(str(value).replace("https://", "").replace("http://", "")))


def paragraph(content: str) -> Markup:
    """Small print."""
    return Markup(f'<p class="about">{text(content)}</p>\n')


def box(title: str, failures: Iterable[Failure], again: str) -> Markup:
    """What stands in the place of a part that was not made: what is missing, why, and the command that makes it."""
    return fill("box", title=title, failures=list(failures), again=again)


def table(frame: pd.DataFrame) -> Markup:
    """A table of text."""
    rows = [[{"text": cell, "kind": _kind(cell)} for cell in row] for row in frame.itertuples(index=False)]
    return fill("table", columns=list(frame.columns), rows=rows)


def _kind(cell: object) -> Markup:
    """A cell's class; without a least width a browser would make a column of sentences as narrow as their words."""
    length = len(str(cell))
    kind = "sentence" if length > SENTENCE_LENGTH else "short" if length <= SHORT_LENGTH else ""
    return Markup(f' class="{kind}"' if kind else "")


def drawings(name: str, tables: Mapping[str, pd.DataFrame], results_dir: Path) -> Markup:
    """All variants of a figure, as `render` drew them, with their captions, and its table, folded.

    Variants whose captions differ in nothing but the latency model and the trace share one.
    tables: what they were drawn from. ResultError for a picture that is not there.
    """
    module = figure_module(name)
    note = module.note(tables) if hasattr(module, "note") else ""
    html = paragraph(note) if note else Markup()
    captions = [(variant, module.caption(tables, variant)) for variant in module.variants(tables)]
    for _, same in groupby(captions, key=lambda pair: _generic(*pair)):
        html += _pictures(name, module, list(same), results_dir)
    if html and hasattr(module, "text_table"):
        rows = table(module.text_table(tables))
        html += Markup(f"<details open><summary>Table</summary>{rows}</details>\n")
    return html


def _generic(variant: Variant, caption: str) -> str:
    """A caption without what tells its variant from others."""
    own = caption.replace(variant.latency, "\0latency")
    return own.replace(style.trace_label(variant.trace), "\0trace") if variant.trace else own


def _pictures(name: str, module: ModuleType, same: list[tuple[Variant, str]], results_dir: Path) -> Markup:
    """Pictures that share a caption; each is labelled with what it is about, unless it is the only one."""
    shared = len(same) > 1
    variants = [variant for variant, _ in same]
    latencies = " and ".join(dict.fromkeys(v.latency for v in variants))
    traces = " and ".join(dict.fromkeys(style.trace_label(v.trace) for v in variants if v.trace))
    caption = _generic(*same[0]).replace("\0latency", latencies).replace("\0trace", traces)
    pictures = []
    for variant in variants:
        png = _picture(name, variant, results_dir)
        width_in = int.from_bytes(png[16:20], "big") / style.DPI  # the header's first field
        about = ", ".join([*([style.trace_label(variant.trace)] if variant.trace else []), variant.latency])
        pictures.append(
            {
                "id": f"{name}-{variant.slug}",
                "narrow": width_in < style.DOUBLE_IN / 2,
                "width": round(width_in * PIXELS_PER_INCH),
                "alt": f"{module.TITLE}. {about}. {(module.draw.__doc__ or '').partition(chr(10))[0]}",
                "source": Markup(f"data:image/png;base64,{base64.b64encode(png).decode()}"),
                "label": about if shared else "",
            }
        )
    return fill("pictures", pictures=pictures, shared=shared, caption=caption)


def _picture(name: str, variant: Variant, results_dir: Path) -> bytes:
    """A variant's PNG, of `style.DPI` dots per inch."""
    path = results_dir / "figures" / f"{name}-{variant.slug}.png"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        draw = f"python -m artifact figure {name} --results {results_dir}"
        raise ResultError(f"{path}: is missing; run `{draw}` to draw it") from None


def write_figure_page(name: str, results_dir: Path) -> Path:
    """The page of one figure, from results_dir/tables and the pictures in results_dir/figures; its path.

    Raises ValueError for an unknown figure, ResultError for a missing table or picture.
    """
    tables = load_tables(figure_module(name).INPUTS, results_dir / "tables")
    path = results_dir / "figures" / f"{name}.html"
    write_text(path, page(figure_module(name).TITLE, drawings(name, tables, results_dir)))
    return path
