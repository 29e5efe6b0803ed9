"""Fig 12: violations when the load toggles between less and more than a replica serves; what became of the relegated.

Some requests are of low importance. Latency against time is Fig 13.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import marks, paper, style, waves
from figures.classes import Class, classes
from figures.frames import (
    CRITERION_ALL,
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    columns,
    estimate,
    require,
    traces_and_latencies,
)

TITLE = "Fig 12: load that toggles, violations"
INPUTS = ("overload",)
GROUPS = {"all": "overall", "important": "important"}  # and each class
ENDS = ("p50", "p99", "max")
COLUMNS = (
    *RUN_COLUMNS,
    *(CRITERION_PAPER, CRITERION_ALL, "relegated_share", *waves.COLUMNS),
    *(f"{measure}_{end}_s" for measure in ("ttft", "ttlt") for end in ENDS),
)
GROUP_WIDTH = 0.84
LOW = 0.02  # violated share of a bar too low to be seen
IN_FRONT = {"zorder": 7, "clip_on": False}


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "overload", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    frame = variant.rows(require(tables, "overload", COLUMNS))
    return (
        f"Fig 12: {waves.describe_load(frame)}; {style.trace_label(variant.trace)}, latency model {variant.latency}. "
        "Left: requests that missed their TTFT or TTLT, by group. Right: latency "
        "(TTFT of interactive classes, else TTLT) of the requests that a system relegated, of all where none is: "
        "dot, bar and cross are median, 99th percentile and the longest, means over seeds. Every relegated request was "
        "served to its end. Coloured numbers: ours, of Niyama's bars and of those below 2 %, each below its mark. "
        + ("Stars: printed in the paper." if _printed(variant, frame) else "The paper did not run this trace and load.")
    )


def _wave(rows: pd.DataFrame) -> dict[str, float]:
    return {name: float(rows[name].iloc[0]) for name in ("low_qps", "high_qps")}


def _printed(variant: Variant, rows: pd.DataFrame, system: str = "niyama") -> dict[str, object]:
    """The paper's numbers for the load of these rows."""
    return paper.overload_violations(variant.trace, system, variant.latency, **_wave(rows))


def table(tables: Tables) -> pd.DataFrame:
    """Violations by group with interval and the paper's number, and the relegated requests' fate; a row per system."""
    frame = require(tables, "overload", COLUMNS)
    rows = []
    for variant in traces_and_latencies(frame):
        own = variant.rows(frame)
        for system in style.in_order(own["system"], style.SYSTEMS):
            rows.append(_row(own[own["system"] == system], variant, system))
    return pd.DataFrame(rows)


def _row(own: pd.DataFrame, variant: Variant, system: str) -> dict[str, object]:
    """One system's numbers: shares, and seconds of those relegated (of all where nobody was)."""
    wave, printed = _wave(own), _printed(variant, own, system)
    row = {"latency": variant.latency, "trace": variant.trace, "system": system, **wave}
    row |= {"requests": int(own["requests"].iloc[0]), "seeds": own["seed"].nunique()}
    for group in (*GROUPS, *(one.name for one in classes(own))):
        row |= columns(group, estimate(own.loc[own["group"] == group, CRITERION_PAPER]))
        row[f"paper_{group}"] = printed.get(group, math.nan)
    whole = own[own["group"] == "all"]
    row |= {"with_tbt": whole[CRITERION_ALL].mean(), "relegated_share": whole["relegated_share"].mean()}
    row["relegated_low_share"] = own.loc[own["group"] == "low", "relegated_share"].mean()
    row["relegated_important_share"] = own.loc[own["group"] == "important", "relegated_share"].mean()
    for one in classes(own):
        for prefix, name in (("", one.name), ("relegated_", f"relegated {one.name}")):
            for end in ENDS:
                row[f"{prefix}{one.name}_{end}_s"] = own.loc[own["group"] == name, f"{one.measure}_{end}_s"].mean()
    row["longest_s"] = own.loc[own["group"] == "all", "ttlt_max_s"].max()
    row["relegated_longest_s"] = own.loc[own["group"] == "relegated", "ttlt_max_s"].max()
    return row


def _titles(shown: list[Class]) -> dict[str, str]:
    """Groups of requests on the left -> title."""
    return {**GROUPS, **{one.name: one.name for one in shown}}


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text: per cent violated, the paper's in brackets, and what became of the relegated."""
    rows, shown = table(tables), _titles(classes(require(tables, "overload", COLUMNS)))
    text = pd.DataFrame(
        {
            "trace": rows["trace"].map(style.trace_label),
            "latency": rows["latency"],
            "system": [style.look(name).label for name in rows["system"]],
        }
    )
    for group, title in shown.items():
        ends = rows[[group, f"{group}_low", f"{group}_high"]].clip(0, 1) * 100
        text[f"{title} (%)"] = [style.interval_text(*values, digits=1) for values in ends.to_numpy()]
        text[f"paper {title}"] = [style.number_text(v * 100, 1) for v in rows[f"paper_{group}"]]
    for column, title in (("with_tbt", "with token deadlines"), ("relegated_share", "relegated")):
        text[f"{title} (%)"] = [style.number_text(v * 100, 1) for v in rows[column]]
    text["relegated of low, important (%)"] = [
        f"{style.number_text(low * 100, 1)}, {style.number_text(important * 100, 1)}"
        for low, important in zip(rows["relegated_low_share"], rows["relegated_important_share"], strict=True)
    ]
    for group in (name for name in shown if name not in GROUPS):
        names = [f"relegated_{group}_{end}_s" for end in ENDS]
        text[f"relegated {group}: p50, p99, longest (s)"] = [
            ", ".join(style.number_text(v, 0) for v in values) for values in rows[names].to_numpy()
        ]
    text["longest of all (s)"] = [style.number_text(v, 0) for v in rows["longest_s"]]
    return text


def draw(tables: Tables, variant: Variant) -> Figure:
    """Violations by group on the left, latencies of the relegated on the right."""
    frame = variant.rows(require(tables, "overload", COLUMNS))
    rows = table({"overload": frame})
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 3.0)
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        _violations(left, rows, _titles(classes(frame)))
        _latencies(right, rows, classes(frame))
        handles = [Patch(color=style.look(s).colour, label=style.look(s).label) for s in rows["system"]]
        if rows["paper_all"].notna().any():
            handles.append(marks.star_handle())
        style.legend_above(figure, handles, 5)
        style.footer(figure, frame, set(rows["seeds"]), "lines on bars: 95 % interval over seeds (Student's t)")
    return figure


def _violations(ax: Axes, rows: pd.DataFrame, titles: dict[str, str]) -> None:
    width = GROUP_WIDTH / len(rows)
    for i, row in enumerate(rows.to_dict("records")):
        for x, group in enumerate(titles):
            at = x + (i - (len(rows) - 1) / 2) * width
            ax.bar(at, 100 * row[group], width * 0.94, color=style.look(row["system"]).colour, zorder=2)
            if not math.isnan(row[f"{group}_low"]):
                ends = [100 * min(1.0, max(0.0, row[f"{group}_{end}"])) for end in ("low", "high")]
                ax.plot([at, at], ends, color=style.INK, lw=0.9, zorder=4)
            printed, own = row[f"paper_{group}"], style.look(row["system"])
            if not math.isnan(printed):
                ax.plot(at, 100 * printed, **marks.star(), clip_on=False)
            if row[group] < LOW:
                ax.plot(at, 100 * row[group], own.marker, ms=3, color=own.colour, mec="white", mew=0.4, **IN_FRONT)
            if row[group] < LOW or own.emphasised:
                _number(ax, at, row[group], own)
    ax.set_xticks(range(len(titles)), titles.values())
    ax.tick_params(axis="x", length=0, pad=14)  # numbers are between
    ax.set_ylim(0, 104)
    ax.set_ylabel("requests violated (%)", labelpad=2)
    style.tidy(ax)


def _number(ax: Axes, at: float, share: float, look: style.Look) -> None:
    """A bar's value in its colour below the axis, where no star can be taken for what it labels."""
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center", "va": "top"}
    aside = 2 if look.emphasised else -2  # from its neighbour's
    ax.annotate(f"{100 * share:.1f}", (at, 0), (aside, -5), color=look.colour, fontsize=style.SMALL_PT, **where)


def _latencies(ax: Axes, rows: pd.DataFrame, shown: list[Class]) -> None:
    """Median, 99th percentile and longest: of the relegated where a system relegates, else of all."""
    for i, row in enumerate(rows.to_dict("records")):
        for x, one in enumerate(shown):
            prefix = "relegated_" if row["relegated_share"] > 0 else ""
            median, high, longest = (row[f"{prefix}{one.name}_{end}_s"] for end in ENDS)
            if math.isnan(median):
                continue
            at = x + (i - (len(rows) - 1) / 2) * GROUP_WIDTH / len(rows)
            look = style.look(row["system"])
            ax.plot([at, at], [median, longest], color=look.colour, lw=1.4, zorder=3)
            ax.plot(at, median, color=look.colour, marker="o", ms=3.5, zorder=4)
            ax.plot(at, high, color=look.colour, marker="_", ms=7, mew=1.6, zorder=4)
            ax.plot(at, longest, color=look.colour, marker="x", ms=4.5, mew=1.2, zorder=4)
    style.log_axis(ax)
    for x, one in enumerate(shown):
        if one.slo_s is not None:
            ax.plot([x - 0.45, x + 0.45], [one.slo_s] * 2, **marks.SLO, zorder=2)
    ax.set_xticks(range(len(shown)), [one.title for one in shown])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(shown) - 0.4)
    ax.set_ylabel("seconds", labelpad=2)
    none = [style.look(row.system).label for row in rows.itertuples() if not row.relegated_share > 0]
    whom = f"\n({', '.join(none)} relegate none: of all)".replace("Sarathi-", "") if none else ""
    ax.set_title(f"latency of relegated requests{whom}")
    shapes = {"o": "median", "_": "p99", "x": "longest"}
    handles = [Line2D([], [], marker=m, ls="none", color=style.FAINT, ms=5, label=text) for m, text in shapes.items()]
    handles.append(marks.slo_handle())
    ax.legend(handles=handles, loc="lower right", handlelength=1.4, borderpad=0.1, labelspacing=0.25)
    style.tidy(ax)
