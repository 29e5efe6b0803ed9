"""What differs from the paper, and why we think so: short notes whose numbers come from the tables."""

from __future__ import annotations

import pandas as pd

from figures import fig1_table4, fig7, fig7_ratios, style
from figures.frames import CRITERION_PAPER, Tables, require
from figures.headline import SYSTEMS

INPUTS = ("capacity", "summary", "cluster")
ARTIFACT = "qoserve-artifact"
PAPERS_FEWER_GPUS = "23 %"  # abstract; 13 against 10 in Table 4


def notes(tables: Tables) -> list[tuple[str, str]]:
    """Title and text of each note that the tables have data for."""
    capacities = fig7.table(tables)
    found = (
        run_length(capacities),
        level(capacities),
        ratios(fig7_ratios.table(tables)),
        token_deadlines(capacities),
        gaps(tables),
        gpus(tables),
        latency_models(capacities),
        traces(tables),
        (
            "Time is modelled",
            "Nothing here ran on a GPU unless the backend says so: step times come from a latency model, and where the "
            "predictor is an oracle the scheduler's predictions are exact. The paper's predictor is said to err by up "
            "to 10 %. Absolute loads inherit the model's error; comparisons between systems suffer less.",
        ),
    )
    return [note for note in found if note is not None]


def _spread(values: pd.Series, digits: int = 2) -> str:
    """`a` or `a to b`."""
    low, high = (style.number_text(v, digits) for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def run_length(capacities: pd.DataFrame) -> tuple[str, str] | None:
    """Bars above the fluid bound, and what longer runs give."""
    bars = capacities.dropna(subset=["fluid_bound_qps"])
    missing = bars["capacity_qps"].isna()
    above = (bars["capacity_qps"] > bars["fluid_bound_qps"]) | (missing & bars["remark"].str.contains("up to"))
    text = (
        f"{int(above.sum())} of {len(bars)} capacities lie above the fluid bound or were not crossed at all. That is "
        "no error: batch requests may wait 10 and 30 minutes, so a run can end before its backlog is late, and the "
        "load that “holds” depends on N. The paper gives no N for Fig 7 (its scripts: 18,000 to 42,000; its text: "
        "4 hours)."
    )
    both = bars.dropna(subset=["long_capacity_qps", "capacity_qps"])
    if len(both):
        change = 100 * (both["long_capacity_qps"] / both["capacity_qps"] - 1)
        text += (
            f" From N = {style.counted(both['requests'].astype(int))} to N = "
            f"{style.counted(both['long_requests'].astype(int))}, capacities change by {_spread(change, 0)} %; the "
            "long runs are the better estimate of what a deployment sustains."
        )
    return "Run length", text


def level(capacities: pd.DataFrame) -> tuple[str, str] | None:
    """Measured over printed, by system."""
    parts = []
    for system in SYSTEMS:
        own = capacities[(capacities["system"] == system) & capacities["paper_qps"].notna()]
        texts = [
            f"{_spread(ratio)} ({name})"
            for name, column in (("shorter runs", "capacity_qps"), ("long runs", "long_capacity_qps"))
            if len(ratio := (own[column] / own["paper_qps"]).dropna())
        ]
        if texts:
            parts.append(f"{style.look(system).label} {', '.join(texts)}")
    if not parts:
        return None
    return (
        "Absolute goodput",
        f"Measured goodput over the printed one, across traces and latency models: {'; '.join(parts)}. What run "
        "length does not explain, we think, comes from the latency model, which stands in for engine, GPU "
        "and host overhead, and from the traces' lengths: of the 2024 weeks only quantiles are published. The 2023 "
        "hours, which the paper did not run, are left out.",
    )


def ratios(rows: pd.DataFrame) -> tuple[str, str] | None:
    """Niyama's ratios over the baselines, compared with the paper's labels."""
    if rows.empty:
        return None
    own = rows[(rows["numerator"] == "niyama") & (rows["criterion"] == CRITERION_PAPER)]
    parts = []
    for (baseline, length), group in own.groupby(["baseline", "run_length"], sort=False):
        both = group.dropna(subset=["ratio", "paper_ratio"])
        if len(both):
            runs = fig7_ratios.RUN_LENGTHS[length]
            parts.append(f"over {baseline}, {runs}: {_spread(both['ratio'])} (paper {_spread(both['paper_ratio'])})")
    if not parts:
        return None
    return (
        "Ratios",
        f"Niyama's goodput {'; '.join(parts)}. Ratios cancel most of the latency model's error, so they are the fairer "
        "comparison. Where short and long runs disagree, we think that unused slack of the batch classes is why: it "
        "lifts policies that know deadlines, EDF among them, but not FCFS, which fails at Q1's TTFT first.",
    )


def token_deadlines(capacities: pd.DataFrame) -> tuple[str, str] | None:
    """What counting token deadlines costs each of the two."""
    parts = []
    for system in ("niyama", ARTIFACT):
        own = capacities[capacities["system"] == system].dropna(subset=["capacity_qps", "capacity_with_tbt_qps"])
        if len(own):
            change = 100 * (own["capacity_with_tbt_qps"] / own["capacity_qps"] - 1)
            parts.append(f"{style.look(system).label} by {_spread(change, 0)} %")
    if not parts:
        return None
    return (
        "Token deadlines",
        f"The authors' scripts never evaluate TBT. Counting every token deadline of Eq 2 changes the goodput of "
        f"{' and of '.join(parts)}. The authors' code starts token deadlines at the actual first token when that is "
        "late and gives each one TBT more than Eq 2, so it plans steps that Eq 2 calls late.",
    )


def gaps(tables: Tables) -> tuple[str, str] | None:
    """Long gaps that break no deadline."""
    frame = require(tables, "summary", ("group", "system", "gap_over_tbt_share", "late_token_share", "load_qps"))
    own = frame[(frame["group"] == "Q1") & (frame["system"] == "niyama")]
    if own.empty:
        return None
    means = own.groupby(["trace", "latency", "load_qps"])[["gap_over_tbt_share", "late_token_share"]].mean()
    trace, _, load_qps = means["gap_over_tbt_share"].idxmax()
    worst = means.loc[means["gap_over_tbt_share"].idxmax()] * 100
    return (
        "Gaps between tokens",
        f"At {load_qps:g} QPS on {style.trace_label(trace)}, {worst['gap_over_tbt_share']:.1f} % of the gaps between "
        f"Niyama's Q1 tokens exceed the TBT while {worst['late_token_share']:.2f} % of the tokens are late: an early "
        "first token banks time. The paper reports TBT violations below 0.1 % on average and does not plot gaps.",
    )


def gpus(tables: Tables) -> tuple[str, str] | None:
    """Fewer GPUs than the silo."""
    frame, parts = tables["cluster"], []
    load_qps = float(frame["load_qps"].iloc[0])
    for variant in fig1_table4.variants(tables):
        sizes = fig1_table4.planned(variant.rows(frame)).set_index("system")["replicas"]
        if {fig1_table4.SILO, "niyama"} <= set(sizes.index):
            silo, own = int(sizes[fig1_table4.SILO]), int(sizes["niyama"])
            where = f"{style.trace_label(variant.trace)}, {variant.latency}"
            parts.append(f"{own} instead of {silo} ({100 * (1 - own / silo):.0f} % fewer; {where})")
    if not parts:
        return None
    return (
        "GPUs",
        f"Niyama needs {'; '.join(parts)}; the paper, on its 2024 week of Azure code, 10 instead of 13 "
        f"({PAPERS_FEWER_GPUS} fewer at 35 QPS with 360,000 requests; here {load_qps:g} QPS, N = "
        f"{style.counted(frame['requests'])}). Our silo is planned pool "
        "by pool to the same 1 %.",
    )


def latency_models(capacities: pd.DataFrame) -> tuple[str, str] | None:
    """How much the choice of latency model moves capacities."""
    names = list(capacities["latency"].unique())
    if len(names) < 2:
        return None
    wide = capacities.pivot(index=["trace", "system"], columns="latency", values="capacity_qps")
    ratio = (wide[names[1]] / wide[names[0]]).dropna()
    if ratio.empty:
        return None
    return (
        "Latency model",
        f"{names[1]} gives {_spread(ratio)} times the goodput of {names[0]} on the same trace and system. What holds "
        "under both does not hang on the defects of the authors' fitted model.",
    )


def traces(tables: Tables) -> tuple[str, str] | None:
    """Which traces are synthetic."""
    names = {str(name) for table in INPUTS for name in tables[table]["trace"].unique()}
    synthetic = [name for name in style.in_order(names, style.TRACES) if name.endswith(style.SYNTHETIC)]
    if not synthetic:
        return None
    return (
        "Traces",
        f"{', '.join(synthetic)}: drawn from a sketch of the trace, not the trace itself. Quantiles of the lengths "
        "follow the published ones; how the answer's length depends on the prompt's is estimated (traces/README.md).",
    )
