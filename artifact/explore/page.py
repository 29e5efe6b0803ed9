"""The page's widgets: what is asked on the left, the answer on the right, anew whenever a widget is let go."""

from __future__ import annotations

import html
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from artifact.config import ConfigError
from artifact.explore.answered import Answer, answer, draw
from artifact.explore.asked import Asked, kept_upload
from artifact.planning.facts import label
from artifact.planning.question import SYSTEMS
from artifact.results.metrics import THRESHOLD
from artifact.runs.spec import LATENCY, PAPER_MIX, ClassSpec
from figures import style
from niyama.latency import model_names
from traces import load_catalog
from traces.lengths import require_lengths

TRACE = "azure-code-2024-week-synth"  # there without a download
QPS = 20.0
INTERACTIVE, BATCH = "interactive", "batch"
_WIDE = {"layout": widgets.Layout(width="330px"), "style": {"description_width": "90px"}}


class ClassRow:
    """The widgets of one class. changed: called when one is let go; removed: when the class is taken away."""

    def __init__(self, qos: ClassSpec, changed: Callable[[Any], None], removed: Callable[[ClassRow], None]) -> None:
        kind = INTERACTIVE if qos.qos().interactive else BATCH
        self.name = widgets.Text(qos.name, description="class", continuous_update=False, **_WIDE)
        self.kind = widgets.ToggleButtons(options=[INTERACTIVE, BATCH], value=kind, style={"button_width": "90px"})
        self.ttft_s = _slider("TTFT, s", qos.ttft_s or 6.0, 0.1, 100.0)
        self.tbt_ms = _slider("TBT, ms", 1e3 * (qos.tbt_s or 0.05), 5.0, 1000.0)
        self.ttlt_s = _slider("TTLT, s", qos.ttlt_s or 600.0, 1.0, 10_000.0)
        self.share = widgets.FloatSlider(100 * qos.share, min=0, max=100, step=1, description="share", **_lazy())
        remove = widgets.Button(description="remove", layout=widgets.Layout(width="80px"))
        remove.on_click(lambda _: removed(self))
        self.box = widgets.VBox(
            layout=widgets.Layout(border_left="3px solid #ddd", margin="0 0 8px 0", padding="0 0 0 6px")
        )
        self._remove = remove
        self._show(None)
        self.kind.observe(self._show, names="value")
        for knob in (self.name, self.kind, self.ttft_s, self.tbt_ms, self.ttlt_s, self.share):
            knob.observe(changed, names="value")

    def _show(self, _: object) -> None:
        slos = (self.ttft_s, self.tbt_ms) if self.kind.value == INTERACTIVE else (self.ttlt_s,)
        self.box.children = (widgets.HBox([self.name, self._remove]), self.kind, *slos, self.share)

    def fields(self) -> dict[str, Any]:
        """Fields of a `ClassSpec`; the share in any unit."""
        own: dict[str, Any] = {"name": self.name.value.strip(), "share": float(self.share.value)}
        if self.kind.value == INTERACTIVE:
            return own | {"ttft_s": round(self.ttft_s.value, 4), "tbt_s": round(self.tbt_ms.value / 1e3, 6)}
        return own | {"ttlt_s": round(self.ttlt_s.value, 3)}


class Page:
    """All widgets, and the answer to what they say."""

    def __init__(self, classes: tuple[ClassSpec, ...] = PAPER_MIX, trace: str = TRACE, qps: float = QPS) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="niyama-explore-"))
        self.trace = widgets.Combobox(
            value=trace, options=trace_names(), description="trace", continuous_update=False, **_WIDE
        )
        self.upload = widgets.FileUpload(
            description="or upload a trace", multiple=False, layout=widgets.Layout(width="200px")
        )
        self.card = widgets.Dropdown(value=LATENCY, options=model_names(), description="card", **_WIDE)
        self.qps = _slider("requests/s", qps, 0.1, 1000.0)
        self.usd = widgets.Text(
            "", description="USD a GPU-h", placeholder="of the list", continuous_update=False, **_WIDE
        )
        self.with_tbt = widgets.Checkbox(True, description="count every token's deadline", indent=False)
        names = [(label(name), name) for name in SYSTEMS]
        self.systems = widgets.SelectMultiple(value=SYSTEMS, options=names, description="systems", rows=5, **_WIDE)
        self.rows: list[ClassRow] = []
        self.class_box = widgets.VBox()
        add = widgets.Button(description="add a class")
        add.on_click(lambda _: self.add(ClassSpec(name=f"class-{len(self.rows) + 1}", share=0.1, ttlt_s=600.0)))
        self.headline, self.table, self.note = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture = widgets.Image(format="png", width=700)
        self.upload.observe(self._uploaded, names="value")
        for knob in (self.trace, self.card, self.qps, self.usd, self.with_tbt, self.systems):
            knob.observe(self.redraw, names="value")
        for qos in classes:
            self.add(qos, redraw=False)
        left = [
            self.trace,
            self.upload,
            self.card,
            self.qps,
            self.usd,
            self.with_tbt,
            self.systems,
            self.class_box,
            add,
        ]
        right = [self.headline, self.table, self.picture, self.note]
        asked, answered = widgets.Layout(min_width="430px"), widgets.Layout(margin="0 0 0 24px")
        self.box = widgets.HBox([widgets.VBox(left, layout=asked), widgets.VBox(right, layout=answered)])
        self.redraw()

    def add(self, qos: ClassSpec, *, redraw: bool = True) -> None:
        """One more class."""
        self.rows.append(ClassRow(qos, self.redraw, self._remove))
        self.class_box.children = tuple(row.box for row in self.rows)
        if redraw:
            self.redraw()

    def _remove(self, row: ClassRow) -> None:
        self.rows.remove(row)
        self.class_box.children = tuple(left.box for left in self.rows)
        self.redraw()

    def _uploaded(self, _: object) -> None:
        for file in self.upload.value:
            self.trace.value = str(kept_upload(self.folder, file["name"], bytes(file["content"])))

    def asked(self) -> Asked:
        """What the widgets say. ConfigError: what makes no sense."""
        usd = self.usd.value.strip()
        try:
            price = float(usd) if usd else None
        except ValueError:
            raise ConfigError(f"USD/GPU-hour is {usd!r}; write a number such as 2.5, or nothing") from None
        if price is not None and not 0 < price < 1e4:
            raise ConfigError(f"USD/GPU-hour is {usd}; write a price above 0 and below 10,000")
        classes = tuple(row.fields() for row in self.rows)
        rest = float(f"{self.qps.value:.4g}"), self.card.value, tuple(self.systems.value), price, self.with_tbt.value
        return Asked(self.trace.value.strip(), classes, *rest)

    def redraw(self, _: object = None) -> None:
        """Answer what the widgets say now; what makes no sense is said in a line, and the last answer goes."""
        self.headline.value = "<p>computing ...</p>"
        start = time.perf_counter()
        try:
            asked = self.asked()
            found = answer(asked.question())
        except (ValueError, OSError) as error:  # ConfigError and TraceError are ValueErrors
            self.headline.value = f'<p style="color:#B00020"><b>{html.escape(str(error))}</b></p>'
            self.table.value = self.note.value = ""
            self.picture.layout.display = "none"
            return
        self.headline.value = f"<h3>{html.escape(found.sentence())}</h3>"
        self.table.value = table(found)
        self.picture.value, self.picture.layout.display = style.image_bytes(draw(found), "png"), ""
        self.note.value = note(asked, found, time.perf_counter() - start)


def table(found: Answer) -> str:
    """GPUs, cost and what is violated on as many GPUs, a row a system."""
    names = found.question.names
    head = ["system", "GPUs", "USD a month", *(f"{name} violated on {found.compared_gpus} GPUs" for name in names)]
    rows = []
    for row in found.rows:
        usd = "–" if row.usd_a_month is None else f"{row.usd_a_month:,.0f}"
        rates = (f"{100 * row.violated[name]:.1f} %" if name in row.violated else "–" for name in names)
        rows.append([label(row.system), str(row.gpus or "none"), usd, *rates])
    return f"<table>{_cells('th', head)}{''.join(_cells('td', cells) for cells in rows)}</table>"


def _cells(tag: str, texts: list[str]) -> str:
    """A row of a table."""
    own = (f"<{tag} style='padding:2px 10px'>{html.escape(text)}</{tag}>" for text in texts)
    return f"<tr>{''.join(own)}</tr>"


def note(asked: Asked, found: Answer, took_s: float) -> str:
    """Where the numbers come from, and how to get better ones."""
    card = found.question.card
    facts = (
        f"Simulated (backend sim), latency model {card.name} ({card.basis}), predictor the same (oracle); one seed, "
        f"{found.question.most_requests:,} requests a run, constant load; {took_s:.1f} s. A fleet holds when each "
        f"class has at most {THRESHOLD:.0%} violated. With intervals, what-ifs and the files that run it:"
    )
    text = f"{asked.command()}\n\n# classes.yaml\n{asked.classes_yaml()}"
    return f"<p style='max-width:700px'>{html.escape(facts)}</p><pre>{html.escape(text)}</pre>"


def trace_names() -> list[str]:
    """Traces of the catalog whose rows are lengths, and the synthetic ones."""
    names = []
    for entry in load_catalog().values():
        try:
            require_lengths(entry)
        except ValueError:
            continue
        names += [entry.name] + ([entry.synthetic_name] if entry.synthetic_name else [])
    return names


def show(**start: Any) -> Page:
    """Put the page into a notebook."""
    page = Page(**start)
    display(page.box)
    return page


def _lazy() -> dict[str, Any]:
    """A slider reports when it is let go, not on the way."""
    return {"continuous_update": False, **_WIDE}


def _slider(text: str, value: float, low: float, high: float) -> Any:
    from math import log10

    ends = {"min": log10(low), "max": log10(high), "step": 0.01, "readout_format": ".4g"}
    return widgets.FloatLogSlider(value, description=text, **ends, **_lazy())
