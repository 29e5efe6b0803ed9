"""HTML of our own: pages that hold everything they show, and the parts they are made of.

Nothing in a page is loaded from elsewhere and nothing says when it was made: the same tables give the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import pandas as pd

from artifact.failures import Failure
from artifact.render import figure_module, load_tables
from artifact.tables import ResultError, write_text
from figures import style
from figures.frames import Variant

PIXELS_PER_INCH = 130  # of a figure on a page
SENTENCE_LENGTH = 105  # characters; a longer cell is prose
CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #222; background: #fff;
  max-width: 68rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid #ddd; }
nav ul { list-style: none; padding: 0; } nav a { white-space: nowrap; } a { color: #0072B2; }
figure { margin: 1.5rem 0 2rem; break-inside: avoid; } figure img { max-width: 100%; height: auto; }
figure.narrow { display: inline-block; width: 28rem; max-width: 48%; margin-right: 1%; vertical-align: top; }
figcaption, .about { color: #555; font-size: .9rem; max-width: 56rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .82rem; margin: .6rem 0 1.2rem; }
th, td { text-align: left; padding: .22rem .6rem; border-bottom: 1px solid #e5e5e5; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { background: #f6f6f6; } td.sentence { min-width: 12rem; } tr { break-inside: avoid; }
.missing { border-left: .3rem solid #D55E00; background: #fdf3ec; padding: .5rem .9rem; margin: .8rem 0 1.4rem;
  max-width: 56rem; overflow-wrap: anywhere; } .missing p { margin: .2rem 0; }
dt { font-weight: 600; margin-top: .7rem; } dd { margin: 0 0 0 1rem; }
summary { cursor: pointer; color: #0072B2; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } nav { display: none; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; } }
"""


def page(title: str, body: str) -> str:
    """A complete page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<h1>{text(title)}</h1>\n"
        f"{body}</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Escaped text. Addresses lose their scheme, so that a page without links to elsewhere is easy to check."""
    return escape(str(value).replace("https://", "").replace("http://", ""))


def paragraph(words: str) -> str:
    """Small print."""
    return f'<p class="about">{text(words)}</p>\n'


def box(title: str, failures: Iterable[Failure], again: str) -> str:
    """What stands in the place of a part that was not made: what is missing, why, and the command that makes it."""
    lines = "".join(
        f"<p>{text(failure.part)}: {text(failure.reason)}</p>\n"
        + (f"<p>By hand: <code>{text(failure.command)}</code></p>\n" if failure.command else "")
        for failure in failures
    )
    return (
        f'<div class="missing"><p><b>{text(title)}</b></p>\n{lines}'
        f"<p>To make it: <code>{text(again)}</code> (what is finished stays).</p></div>\n"
    )


def table(frame: pd.DataFrame) -> str:
    """A table of text."""
    head = "".join(f"<th>{text(column)}</th>" for column in frame.columns)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in frame.itertuples(index=False))
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'


def _cell(value: object) -> str:
    """A cell; without a least width a browser would make a column of sentences as narrow as their longest word."""
    kind = ' class="sentence"' if len(str(value)) > SENTENCE_LENGTH else ""
    return f"<td{kind}>{text(value)}</td>"


def drawings(name: str, tables: Mapping[str, pd.DataFrame], results_dir: Path) -> str:
    """All variants of a figure, as `render` drew them, with their captions, and its table, folded.

    tables: what they were drawn from. ResultError for a picture that is not there.
    """
    module = figure_module(name)
    note = module.note(tables) if hasattr(module, "note") else ""
    html = paragraph(note) if note else ""
    for variant in module.variants(tables):
        png = _picture(name, variant, results_dir)
        width_in = int.from_bytes(png[16:20], "big") / style.DPI  # the header's first field
        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        label = f"{name}-{variant.slug}"
        kind = ' class="narrow"' if width_in < style.DOUBLE_IN / 2 else ""
        html += (
            f'<figure id="{text(label)}"{kind}><img width="{round(width_in * PIXELS_PER_INCH)}" alt="{text(label)}" '
            f'src="{image}"><figcaption>{text(module.caption(tables, variant))}</figcaption></figure>\n'
        )
    if html and hasattr(module, "text_table"):
        html += f"<details open><summary>Table</summary>{table(module.text_table(tables))}</details>\n"
    return html


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
