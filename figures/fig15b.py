"""Fig 15b: GPUs for one load of two interactive classes against their mix: silo, PolyServe and Niyama shared.

GPUs follow from goodput per replica, as in the paper; planned fleets, run as they are, for comparison.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures import load_lines, style
from figures.frames import CRITERION_ALL, SEARCH_COLUMNS, Tables, Variant, require, traces_and_latencies

TITLE = "Fig 15b: PolyServe, GPUs against the mix"
INPUTS = ("polyserve_classes", "polyserve_mixes", "polyserve_fleets")
FLEET_COLUMNS = ("trace", "system", "latency", "predictor", "load_qps", "requests", "seeds", "share", "fleet", "gpus")
SILO, POLYSERVE, NIYAMA = "sarathi-silo", "polyserve", "niyama"
BOUNDS = ("capacity_qps_per_replica", "interval_high_qps", "interval_low_qps")  # mean, most optimistic, most cautious


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    for name in INPUTS[:2]:
        require(tables, name, SEARCH_COLUMNS)
    return traces_and_latencies(require(tables, "polyserve_fleets", FLEET_COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    load_qps = variant.rows(require(tables, "polyserve_fleets", FLEET_COLUMNS))["load_qps"].iloc[0]
    return (
        f"Fig 15b: GPUs for {load_qps:g} QPS on {style.trace_label(variant.trace)}, latency model {variant.latency}, "
        "as the share of the class with the shorter TBT (50 ms; the other 100 ms, TTFT 6 s both) grows. Lines: from "
        "goodput per replica with token deadlines (Eq 2) counted, whole GPUs; bars: from both ends of its 95 % "
        "interval. Silo: a pool per class, with the better of chunks 256 and 512. PolyServe: a pool per class with "
        "steps of its TBT; the looser class uses what is left of the tighter pool. Niyama: one shared pool. Hollow: "
        "fleets planned by simulation, PolyServe's with its packing of requests (no scaling, no migration, no "
        "feedback to the router). The paper says that QoServe needs fewer at every mix and prints no numbers."
    )


def gpus(capacity: dict[str, float], share: float, load_qps: float) -> int | None:
    """GPUs of two pools that share nothing; `capacity`: of the tighter and of the looser class, in this order."""
    tight, loose = capacity.values()
    if math.isnan(tight) or math.isnan(loose):
        return None
    return math.ceil(load_qps * share / tight) + math.ceil(load_qps * (1 - share) / loose)


def packed_gpus(capacity: dict[str, float], share: float, load_qps: float) -> int | None:
    """The same where what is left of the tighter pool serves the looser class, at the tighter pool's rate."""
    tight, loose = capacity.values()
    if math.isnan(tight) or math.isnan(loose):
        return None
    first = math.ceil(load_qps * share / tight)
    left = load_qps * (1 - share) - (first * tight - load_qps * share)
    return first + math.ceil(max(0.0, left) / loose)


def table(tables: Tables) -> pd.DataFrame:
    """A row per trace, latency model, share of the tighter class and system: GPUs from goodput and by planning."""
    rows = []
    for variant in variants(tables):
        fleets = variant.rows(tables["polyserve_fleets"])
        load_qps = float(fleets["load_qps"].iloc[0])
        mixes = _strict(variant, tables["polyserve_mixes"]).set_index("variant")
        for label in mixes.index:
            share = float(label) / 100
            for system, counts in _from_goodput(tables, variant, mixes.loc[label], share, load_qps).items():
                planned = fleets[(fleets["system"] == system) & ((fleets["share"] - share).abs() < 1e-9)]
                rows.append(
                    {
                        "trace": variant.trace,
                        "latency": variant.latency,
                        "load_qps": load_qps,
                        "share": share,
                        "system": system,
                        **dict(zip(("gpus", "gpus_low", "gpus_high"), counts, strict=True)),
                        "planned_gpus": math.nan if planned.empty else int(planned["gpus"].iloc[0]),
                        "planned_fleet": "" if planned.empty else str(planned["fleet"].iloc[0]),
                    }
                )
    return pd.DataFrame(rows)


def _strict(variant: Variant, frame: pd.DataFrame) -> pd.DataFrame:
    rows = variant.rows(frame)
    return rows[rows["criterion"] == CRITERION_ALL]


def _from_goodput(
    tables: Tables, variant: Variant, mix: pd.Series, share: float, load_qps: float
) -> dict[str, tuple[float, float, float]]:
    """GPUs of each system by its goodput's mean, upper and lower bound; nan where there is none."""
    alone, found = _strict(variant, tables["polyserve_classes"]), {SILO: [], POLYSERVE: [], NIYAMA: []}
    for bound in BOUNDS:
        values = alone.assign(qps=alone[bound].fillna(alone[BOUNDS[0]]).astype(float))
        silo = values[values["system"] != POLYSERVE].groupby("variant", sort=False)["qps"].max()
        packed = values[values["system"] == POLYSERVE].set_index("variant")["qps"]
        shared = mix[bound] if pd.notna(mix[bound]) else mix[BOUNDS[0]]
        found[SILO].append(gpus(silo.to_dict(), share, load_qps))
        found[POLYSERVE].append(packed_gpus(packed.to_dict(), share, load_qps))
        found[NIYAMA].append(math.ceil(load_qps / shared) if pd.notna(shared) else None)
    return {s: tuple(math.nan if n is None else n for n in counts) for s, counts in found.items()}


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    rows = table(tables)
    return pd.DataFrame(
        {
            "trace": rows["trace"].map(style.trace_label),
            "latency": rows["latency"],
            "TBT 50 ms (%)": [style.number_text(100 * v, 0) for v in rows["share"]],
            "system": [style.look(s).label for s in rows["system"]],
            "GPUs from goodput": [
                style.interval_text(r.gpus, r.gpus_low, r.gpus_high, 0) if not math.isnan(r.gpus) else "–"
                for r in rows.itertuples()
            ],
            "planned": [style.number_text(v, 0) for v in rows["planned_gpus"]],
            "fleet": rows["planned_fleet"].replace("", "–"),
        }
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """A line per system, and the planned fleets."""
    rows = variant.rows(table(tables))
    systems = style.in_order(rows["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.SINGLE_IN * 1.25, 3.4)
        ax = figure.subplots()
        for i, system in enumerate(systems):
            own, look = rows[rows["system"] == system].sort_values("share"), style.line_style(system)
            x = own["share"] * 100 + (i - 1) * 1.4  # apart, so that equal numbers do not hide one another
            spread = [own["gpus"] - own["gpus_low"], own["gpus_high"] - own["gpus"]]
            ax.errorbar(x, own["gpus"], spread, elinewidth=0.9, capsize=0, ms=4, **{**look, "lw": 1.2})
            hollow = {**look, "ls": "none", "mfc": "white", "ms": 6, "zorder": 5}
            ax.plot(x, own["planned_gpus"], **hollow)
        ax.set(xlabel="share of the class with TBT 50 ms (%)", ylabel=f"GPUs for {rows['load_qps'].iloc[0]:g} QPS")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        shown = rows[["gpus", "gpus_low", "gpus_high", "planned_gpus"]]
        ax.set_ylim(max(0, shown.min().min() - 3), shown.max().max() + 1)
        style.tidy(ax)
        planned = Line2D([], [], ls="none", marker="o", mfc="white", mec=style.INK, label="planned fleet")
        style.legend_above(figure, [*load_lines.handles(systems), planned], 2)
        shown = [variant.rows(tables[name]) for name in INPUTS]
        seeds = [int(n) for frame in shown for n in frame["seeds"].unique()]
        style.footer(
            figure, pd.concat(shown), seeds, "bars: from the 95 % interval of goodput over seeds (Student's t)"
        )
    return figure
