"""The summary of the report: goodput, ratios and GPUs, measured and printed, in small tables."""

from __future__ import annotations

import math

import pandas as pd

from figures import fig1_table4, fig7, fig7_ratios, paper, style
from figures.frames import CRITERION_PAPER, Tables

INPUTS = ("capacity", "cluster")
SYSTEMS = ("sarathi-fcfs", "sarathi-edf", "niyama")


def caption(tables: Tables) -> str:
    """What a cell of `goodputs` holds."""
    frame = tables["capacity"]
    runs = [
        f"measured in {name} (N = {style.counted(own)})"
        for length, name in fig7_ratios.RUN_LENGTHS.items()
        if len(own := frame.loc[frame["run_length"] == length, "requests"])
    ]
    return (
        f"Each cell: {' / '.join(runs)} / printed in the paper. Goodput in requests/s per replica, violations of TTFT "
        "and TTLT only; an en dash where there is no crossing, no run or no printed number. The paper ran ShareGPT and "
        "the 2024 weeks: nothing that it prints stands beside the 2023 hours."
    )


def goodputs(tables: Tables, latency: str) -> pd.DataFrame:
    """One row per trace: goodput of the paper's three systems and Niyama's ratios, as text."""
    capacities = fig7.table(tables)
    ratios = fig7_ratios.table(tables)
    rows = []
    for trace in style.in_order(capacities.loc[capacities["latency"] == latency, "trace"], style.TRACES):
        row = {"trace": style.trace_label(trace)}
        for system in SYSTEMS:
            row[style.look(system).label] = _goodput(capacities, latency, trace, system)
        for baseline in fig7_ratios.BASELINES:
            row[f"Niyama / {baseline}"] = _ratio(ratios, latency, trace, baseline)
        rows.append(row)
    return pd.DataFrame(rows)


def _goodput(capacities: pd.DataFrame, latency: str, trace: str, system: str) -> str:
    keys = (capacities[["latency", "trace", "system"]] == [latency, trace, system]).all(axis=1)
    columns = ["capacity_qps", "long_capacity_qps", "paper_qps"]
    return _cell(capacities.loc[keys, columns].iloc[0] if keys.any() else [math.nan] * 3)


def _ratio(ratios: pd.DataFrame, latency: str, trace: str, baseline: str) -> str:
    values = []
    for length in fig7_ratios.RUN_LENGTHS:
        wanted = [latency, trace, "niyama", baseline, CRITERION_PAPER, length]
        columns = ["latency", "trace", "numerator", "baseline", "criterion", "run_length"]
        found = ratios.loc[(ratios[columns] == wanted).all(axis=1), "ratio"] if len(ratios) else []
        values.append(found.iloc[0] if len(found) else math.nan)
    return _cell([*values, fig7_ratios.paper_ratio(trace, baseline, latency)])


def _cell(values) -> str:
    return " / ".join(style.number_text(value) for value in values)


def gpus(tables: Tables) -> pd.DataFrame:
    """One row per planned fleet: GPUs, how many fewer than the silo's, and the paper's."""
    rows = []
    for variant in fig1_table4.variants(tables):
        frame = variant.rows(tables["cluster"])
        bars = fig1_table4.planned(frame)
        load_qps = float(frame["load_qps"].iloc[0])
        silo = bars.loc[bars["system"] == fig1_table4.SILO, "replicas"]
        for bar in bars.itertuples():
            printed = paper.planned_gpus(variant.trace, bar.system, variant.latency, load_qps)
            fewer = math.nan if silo.empty else 100 * (1 - bar.replicas / silo.iloc[0])
            rows.append(
                {
                    "latency": variant.latency,
                    "trace": style.trace_label(variant.trace),
                    "load (QPS)": f"{load_qps:g}",
                    "system": style.look(bar.system).label,
                    "fleet": bar.fleet,
                    "GPUs": str(bar.replicas),
                    "fewer than the silo (%)": style.number_text(fewer, 0),
                    "paper's GPUs": str(printed.value) if printed else "–",
                }
            )
    return pd.DataFrame(rows)
