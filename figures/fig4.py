"""Fig 4: duration and throughput of one iteration against its chunk, and what a 50 ms step leaves of the throughput."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import marks, paper, style
from figures.frames import Tables, Variant, latencies, require

TITLE = "Fig 4: throughput and latency against chunk size"
INPUTS = ("chunk_curve",)
COLUMNS = (
    "backend",
    "latency",
    "decodes",
    "decode_context_tokens",
    "chunk_tokens",
    "duration_s",
    "tokens_per_s",
    "prefill_tokens_per_s",
)
PRINTED = ("chunk_tokens", "tokens_per_s", "below_most")
DASHES = ("-", (0, (5, 1.5)), (0, (2, 1)), ":")


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(require(tables, "chunk_curve", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    rows = table({"chunk_curve": variant.rows(require(tables, "chunk_curve", COLUMNS))})
    said = "; ".join(
        f"beside {int(r.decodes)} decodes {style.number_text(r.chunk_tokens, 0)} tokens, "
        f"{style.number_text(r.tokens_per_s, 0)} tokens/s, {style.number_text(100 * r.below_most, 0)} % below the most"
        for r in rows.itertuples()
    )
    star = " Stars: the paper." if _printed(variant.latency) else ""
    return (
        f"Fig 4: one iteration of latency model {variant.latency}, by its prefill chunk (no prefix) and the decodes "
        f"beside it. Dots: the largest chunk up to which every step takes {_tbt_s() * 1e3:.0f} ms or less: {said}. "
        f"Tokens are those of prompt and decodes together. The paper does not say what decodes beside its chunk.{star}"
    )


def _tbt_s() -> float:
    return paper.values()["fig4"]["tbt_s"]


def _printed(latency: str) -> dict | None:
    """The paper's numbers, for latency models of the same model and hardware."""
    found = paper.values()["fig4"]
    return found if paper.model(latency) == found["model"] and found["hardware"] in latency else None


def table(tables: Tables) -> pd.DataFrame:
    """Per latency model and number of decodes: the chunk at the SLO, its throughput, the most there is, the paper's."""
    frame, rows = require(tables, "chunk_curve", COLUMNS), []
    for (latency, decodes), own in frame.groupby(["latency", "decodes"], sort=False):
        own = own.sort_values("chunk_tokens")
        late = own["duration_s"] > _tbt_s()
        holds = own[~late.cummax()]
        most, printed = float(own["tokens_per_s"].max()), _printed(latency) or {}
        at = holds.iloc[-1] if len(holds) else None
        rate = math.nan if at is None else float(at["tokens_per_s"])
        rows.append(
            {
                "latency": latency,
                "decodes": int(decodes),
                "decode_context_tokens": int(own["decode_context_tokens"].iloc[0]),
                "chunk_tokens": math.nan if at is None else int(at["chunk_tokens"]),
                "tokens_per_s": rate,
                "most_tokens_per_s": most,
                "below_most": 1 - rate / most,
                **{
                    f"paper_{name}": printed.get(name, math.nan)
                    for name in ("chunk_tokens", "tokens_per_s", "below_most")
                },
            }
        )
    return pd.DataFrame(rows)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    rows = table(tables)
    whole = {
        "chunk_tokens": f"chunk at {_tbt_s() * 1e3:.0f} ms (tokens)",
        "tokens_per_s": "throughput there (tokens/s)",
    }
    text = pd.DataFrame({"latency": rows["latency"], "decodes": rows["decodes"].map(str)})
    text["their context (tokens)"] = [style.number_text(v, 0) for v in rows["decode_context_tokens"]]
    for name, title in whole.items():
        text[title] = [style.number_text(v, 0) for v in rows[name]]
        text[f"paper {title}"] = [style.number_text(v, 0) for v in rows[f"paper_{name}"]]
    text["most (tokens/s)"] = [style.number_text(v, 0) for v in rows["most_tokens_per_s"]]
    text["below it (%)"] = [style.number_text(100 * v, 0) for v in rows["below_most"]]
    text["paper below it (%)"] = [style.number_text(100 * v, 0) for v in rows["paper_below_most"]]
    return text


def draw(tables: Tables, variant: Variant) -> Figure:
    """Throughput on the left, latency on the right; a line per number of decodes."""
    frame = variant.rows(require(tables, "chunk_curve", COLUMNS))
    at_slo, printed = table({"chunk_curve": frame}).set_index("decodes"), _printed(variant.latency)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.7)
        rate, time = figure.subplots(1, 2)
        handles = []
        colours = style.ramp(frame["decodes"].nunique() + 1)  # of no system; the lightest is too light for text
        shown = zip(frame.groupby("decodes"), colours, DASHES, strict=False)
        for i, ((decodes, own), colour, dashes) in enumerate(shown):
            line = {"color": colour, "ls": dashes, "lw": 1.5}
            rate.plot(own["chunk_tokens"], own["tokens_per_s"], **line)
            time.plot(own["chunk_tokens"], own["duration_s"] * 1e3, **line)
            _mark(rate, time, at_slo.loc[decodes], colour, i)
            context = f" of {own['decode_context_tokens'].iloc[0] // decodes:,} tokens" if decodes else ""
            handles.append(Line2D([], [], label=f"{decodes} decodes{context}", **line))
        if printed:
            rate.plot(printed["chunk_tokens"], printed["tokens_per_s"], **marks.star())
            time.plot(printed["chunk_tokens"], printed["tbt_s"] * 1e3, **marks.star())
            _say(rate, 2, "paper: ", *(printed[name] for name in PRINTED), style.INK)
            handles.append(marks.star_handle())
        _axes(rate, time, float(frame["chunk_tokens"].max()))
        handles.append(Line2D([], [], label=f"at {_tbt_s() * 1e3:.0f} ms", color=style.INK, marker="o", ls="none"))
        style.legend_above(figure, handles, 4)
        style.footnote(figure, f"Backend: the latency model alone, no run. Latency model: {variant.latency}.")
    return figure


def _mark(rate: Axes, time: Axes, mark: pd.Series, colour: str, line: int) -> None:
    """The chunk at the SLO as a dot in both panels, over the star where they meet, and the numbers as text."""
    if math.isnan(mark["chunk_tokens"]):
        return
    dot = {"color": colour, "marker": "o", "ms": 4, "mec": "white", "mew": 0.6, "zorder": 7}
    rate.plot(mark["chunk_tokens"], mark["tokens_per_s"], **dot)
    time.plot(mark["chunk_tokens"], _tbt_s() * 1e3, **dot)
    _say(rate, line, "", *(mark[name] for name in PRINTED), colour)


def _say(ax: Axes, line: int, who: str, chunk: float, rate: float, below: float, colour: str) -> None:
    """Write the numbers at the SLO below the curves."""
    text = f"{who}{chunk:,.0f} tokens, {rate:,.0f}/s, {100 * below:.0f} % lower"
    where = {"transform": ax.transAxes, "ha": "right", "fontsize": style.SMALL_PT}
    ax.text(0.98, 0.3 - 0.09 * line, text, color=colour, **where)


def _axes(rate: Axes, time: Axes, most: float) -> None:
    for ax, unit in ((rate, "tokens/s"), (time, "milliseconds")):
        ax.set(xlim=(0, most), xlabel="chunk (prefill tokens)", ylabel=unit)
        ax.set_ylim(bottom=0)
        style.tidy(ax)
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    rate.set_title("throughput")
    time.set_title("duration of the iteration")
    time.axhline(_tbt_s() * 1e3, **marks.SLO)
    time.annotate(f"SLO {_tbt_s() * 1e3:.0f} ms", (1, _tbt_s() * 1e3), (-2, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", va="bottom", fontsize=style.SMALL_PT)  # fmt: skip
