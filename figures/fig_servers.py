"""Real vLLM servers against load, with the simulator's runs of the same workloads behind them (not in the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle

from figures import load_lines, server_check, style
from figures.frames import CRITERION_ALL, RUN_COLUMNS, Tables, Variant, estimate_of_log, require, traces_and_latencies

TITLE = "Real vLLM servers (not in the paper)"
INPUTS = ("servers",)
#: Backends of the simulator -> what its lines are, for the caption.
SIMULATORS = {"sim": "the simulator", "sim-overlapped": "the simulator, planning a step ahead as the servers do,"}
#: Columns of panels: a group of requests, and the latency that its class is about.
LATENCIES = {"all": ("max_gap_p95_s", "Q1 longest gap, p95", "Q1"), "Q1": ("ttft_p95_s", "Q1 TTFT, p95", "Q1")}
LATENCIES |= {name: ("ttlt_p95_s", f"{name} TTLT, p95", name) for name in ("Q2", "Q3")}
OWN_COLUMNS = ("backend", "replicas", "lag_p99_s", CRITERION_ALL)
COLUMNS = (*RUN_COLUMNS, *OWN_COLUMNS, *(column for column, *_ in LATENCIES.values()))
#: Of a point that was measured on a busy machine: its system's marker, or a ring round one that has no inside.
HOLLOW = {"ls": "none", "mfc": "white", "mew": 0.9, "zorder": 5}
THIN = {"lw": 0.8, "ls": (0, (3, 1.5)), "marker": None, "zorder": 2.5, "alpha": 0.9}


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model; none where servers were only checked, at one load or none."""
    if "servers" in tables and server_check.is_check(measured(tables["servers"])):
        return []
    return traces_and_latencies(require(tables, "servers", COLUMNS))


def note(tables: Tables) -> str:
    """What to say before the drawings and the table, if anything."""
    real = measured(tables["servers"])
    return server_check.note(real) if server_check.is_check(real) else ""


def per_gpu(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the load per GPU in place of the whole system's: the silo has two."""
    return frame.assign(load_qps=frame["load_qps"] / frame["replicas"])


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of real servers."""
    return frame[~frame["backend"].isin(SIMULATORS)] if len(frame) else frame


def busy(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of points at which the load client itself was late, because the machine was busy with other things."""
    return frame[frame["busy"].eq(True)] if "busy" in frame else frame.iloc[:0]


def simulated(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the simulator; none where its latency model is not of the machine that was measured."""
    return frame[frame["backend"].isin(SIMULATORS)]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    frame = require(tables, "servers", COLUMNS)
    about, gpus = frame.attrs, frame.groupby("system")["replicas"].first()
    several = ", ".join(f"{style.look(s).label} {n}" for s, n in gpus.items() if n > 1)
    device, turns = _device(frame), ""
    if about.get("pools_in_turn"):
        turns = f"; its pools one after the other on one {device}, as they share nothing"
    more = f" ({several}: total load and requests are that many times as high{turns})" if several else ""
    return (
        f"Real vLLM servers ({about.get('vllm', 'version not recorded')}, over HTTP, open loop) on "
        f"{style.trace_label(variant.trace)}: {_backend(frame, variant)}. Load is per {device}{more}. Points: "
        f"measured, {about.get('form', 'unknown')} form, "
        f"arrivals over {about.get('seconds', float('nan')):g} s at each load; "
        f"{_behind(frame)}. Violated: of all requests that arrived, TTFT, TTLT and token "
        f"deadlines counted, from the intended send time (client lag, p99: at most {_lag_ms(frame):.1f} ms). "
        f"{_busy_text(frame)}{_failed_text(about)}"
        f"SLOs are scaled to the run's length: {about.get('scaling', 'not recorded')}. Runs this short reach no steady "
        "state: compare systems."
    )


def _device(frame: pd.DataFrame) -> str:
    """What each server has to itself."""
    return "machine" if style.backend(measured(frame)) == "cpu" else "GPU"


def _behind(frame: pd.DataFrame) -> str:
    """What the simulator's lines are."""
    names = [SIMULATORS[name] for name in simulated(frame)["backend"].unique()]
    if not names:
        return "no simulation, as no latency model was fitted to this machine"
    return f"thin dashed: {' and '.join(names)} on the same requests"


def _busy_text(frame: pd.DataFrame) -> str:
    """Which points a busy machine spoilt, and how much."""
    late, all_points = (rows[rows["group"] == "all"] for rows in (busy(frame), measured(frame)))
    if len(late) == 0:
        return ""
    lags_ms, limit_ms = (1e3 * late["lag_p99_s"]).round().astype(int), frame.attrs.get("max_lag_ms", float("nan"))
    return (
        f"Hollow: {len(late)} of {len(all_points)} points, for which the machine was too busy; the load client itself "
        f"was {style.counted(lags_ms)} ms late (p99, limit {limit_ms:g} ms) in the best of "
        f"{style.counted(late['attempts'].astype(int))} attempts, and a quiet machine would show less. "
    )


def _failed_text(about: Mapping[str, Any]) -> str:
    """What is not in the figure because it failed."""
    failed = [failure["part"] for failure in about.get("failures", ())]
    return f"Failed, so not or not wholly shown: {'; '.join(failed)}. " if failed else ""


def _lag_ms(frame: pd.DataFrame) -> float:
    return 1e3 * float(measured(frame)["lag_p99_s"].max())


def _backend(frame: pd.DataFrame, variant: Variant) -> str:
    name = style.backend(measured(frame))
    if name == "emulated":
        return f"the engine is real, the GPU emulated by latency model {variant.latency}"
    gpus = ", ".join(sorted(set(frame.attrs.get("gpus", ())))) or f"backend {name}"
    model, fitted = frame.attrs.get("latency_model", {}), len(simulated(frame)) > 0
    users = "simulator and Niyama's predictor use" if fitted else "Niyama's predictor uses"
    of = f", of {model['hardware']} (error: {model['error']})" if model else ""
    return f"{gpus}; {users} latency model {variant.latency}{of}"


def draw(tables: Tables, variant: Variant) -> Figure:
    """Violations in the upper row, latencies in the lower."""
    table = require(tables, "servers", COLUMNS)
    slos, frame = _slos_s(table.attrs), per_gpu(variant.rows(table))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 3.9)
        panels = figure.subplots(2, len(LATENCIES), sharex=True)
        for k, (group, (column, title, of)) in enumerate(LATENCIES.items()):
            _violations(panels[0, k], frame[frame["group"] == group], systems, "all" if group == "all" else group)
            _latency(panels[1, k], frame[frame["group"] == of], systems, column, title, slos.get((of, column)))
        thin = Line2D([], [], color=style.INK, **THIN, label="simulator")
        ring = Line2D([], [], color=style.INK, marker="o", label="busy machine", **HOLLOW)
        extra = [thin] * (len(simulated(frame)) > 0) + [ring] * (len(busy(frame)) > 0)
        load_lines.finish(figure, panels, "violated (%)", systems, tuple(extra))
        panels[1, 0].set_ylabel("seconds", labelpad=2)
        for ax in panels[-1]:
            ax.set_xlabel(f"load per {_device(frame)} (QPS)", labelpad=2)
        seeds = {frame["seed"].nunique()}
        style.footer(figure, measured(frame), seeds, "bands: 95 % interval over seeds (Student's t)")
    return figure


def _violations(ax: Axes, rows: pd.DataFrame, systems: list[str], title: str) -> None:
    for system in systems:
        _both(ax, rows[rows["system"] == system], system, CRITERION_ALL, scale=100.0, limits=(0.0, 100.0))
    ax.set_title(f"{title}, violated")
    ax.set_ylim(-3, 103)
    style.tidy(ax)


def _latency(ax: Axes, rows: pd.DataFrame, systems: list[str], column: str, title: str, slo_s: float | None) -> None:
    for system in systems:
        _both(ax, rows[rows["system"] == system], system, column, how=estimate_of_log)
    ax.set_title(title)
    style.log_axis(ax)
    style.tidy(ax)
    if slo_s is not None:
        load_lines.deadline(ax, slo_s, f"SLO {slo_s:g} s")


def _both(ax: Axes, rows: pd.DataFrame, system: str, column: str, **how: Any) -> None:
    """The measured line, and the simulated one behind it."""
    load_lines.line(ax, simulated(rows), system, column, **how, **THIN)
    load_lines.line(ax, measured(rows), system, column, **how)
    marker = style.look(system).marker
    hollow = {"marker": marker if MarkerStyle(marker).is_filled() else "o", **HOLLOW}
    late = set(busy(rows)["load_qps"])
    points = measured(rows)
    load_lines.line(ax, points[points["load_qps"].isin(late)], system, column, **how, **hollow)


def _slos_s(about: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """SLO in seconds by class and column of latency, from the table's metadata."""
    fields = {"ttft_p95_s": "ttft_s", "ttlt_p95_s": "ttlt_s", "max_gap_p95_s": "tbt_s"}
    return {
        (c["name"], column): c[field]
        for c in about.get("classes", ())
        for column, field in fields.items()
        if c[field] is not None
    }


def table(tables: Tables) -> pd.DataFrame:
    """Measured and simulated values side by side: a row per system, load per GPU and group, means over seeds.

    client_lag_p99_s and attempts are the worst over seeds; busy: the client itself was late.
    """
    frame = per_gpu(require(tables, "servers", COLUMNS))
    values = [CRITERION_ALL, "ttft_p50_s", "ttft_p95_s", "ttlt_p50_s", "ttlt_p95_s", "max_gap_p95_s"]
    keys = ["system", "load_qps", "group"]
    parts = [
        rows.groupby(keys, sort=False)[values].mean().add_prefix(f"{name}_")
        for name, rows in (("measured", measured(frame)), ("simulated", simulated(frame)))
    ]
    real = measured(frame).assign(
        **{"busy": measured(frame).index.isin(busy(frame).index)},
        **({} if "attempts" in frame else {"attempts": float("nan")}),
    )
    client = real.groupby(keys, sort=False).agg(
        client_lag_p99_s=("lag_p99_s", "max"), attempts=("attempts", "max"), busy=("busy", "any")
    )
    found = parts[0].join(parts[1], how="left").join(client).reset_index()
    rank = {name: i for i, name in enumerate(style.in_order(found["system"], style.SYSTEMS))}
    return found.sort_values(
        ["system", "load_qps"], key=lambda c: c.map(rank) if c.name == "system" else c, kind="stable"
    )


def text_table(tables: Tables) -> pd.DataFrame:
    """The classes' rows as text: measured, with the simulator's value in brackets; of a check, what came out."""
    real = measured(tables["servers"])
    if server_check.is_check(real):
        return server_check.outcomes(real)
    rows = table(tables)
    rows = rows[~rows["group"].isin(("short", "long"))]

    def pair(row: Any, column: str, scale: float, digits: int) -> str:
        numbers = (getattr(row, f"{kind}_{column}") * scale for kind in ("measured", "simulated"))
        real, simulated = (style.number_text(n, digits) for n in numbers)
        return f"{real} ({simulated})"

    return pd.DataFrame(
        {
            "system": style.look(row.system).label,
            "load per GPU": style.number_text(row.load_qps, 1),
            "requests of": row.group,
            "violated %": pair(row, CRITERION_ALL, 100, 1),
            "TTFT p50 s": pair(row, "ttft_p50_s", 1, 2),
            "TTFT p95 s": pair(row, "ttft_p95_s", 1, 2),
            "TTLT p50 s": pair(row, "ttlt_p50_s", 1, 2),
            "TTLT p95 s": pair(row, "ttlt_p95_s", 1, 2),
            "longest gap p95 ms": pair(row, "max_gap_p95_s", 1e3, 0),
            "client lag p99 ms": style.number_text(1e3 * row.client_lag_p99_s, 1)
            + (f", machine busy ({row.attempts:.0f} attempts)" if row.busy else ""),
        }
        for row in rows.itertuples()
    )
