"""A sweep small enough to play with: other SLOs, mix and loads, and the figure of violations about a second later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import display

from artifact.experiments.grid import run_rows
from artifact.runs.run import BACKEND
from artifact.runs.spec import ClassSpec, RunSpec, every
from figures import fig11, style

SYSTEMS = ("sarathi-fcfs", "sarathi-edf", "niyama")
TRACE = "azure-code-2024-week-synth"  # synthetic: there without a download
REQUESTS = 6000
WIDTH_PIXELS = 700
#: What each slider starts at, and its ends.
SLIDERS = {
    "Q1 TTFT, s": (6.0, 0.5, 20.0),
    "Q1 TBT, ms": (50.0, 20.0, 200.0),
    "Q2 TTLT, s": (600.0, 10.0, 1200.0),
    "Q3 TTLT, s": (1800.0, 10.0, 3600.0),
    "Q1 share": (33.0, 0.0, 100.0),
    "Q2 share": (33.0, 0.0, 100.0),
    "Q3 share": (34.0, 1.0, 100.0),
    "up to, QPS": (6.0, 2.0, 12.0),
}


def mixed(shares: Mapping[str, float], slos: Mapping[str, Mapping[str, float]]) -> tuple[ClassSpec, ...]:
    """QoS classes from shares in any unit (1:1:1, or per cent) and SLOs in s (`ttft_s` and `tbt_s`, or `ttlt_s`).

    ValueError when nothing has a share, or a class no SLOs that make sense.
    """
    total = sum(shares.values())
    if not total > 0:
        raise ValueError(f"shares is {dict(shares)}; give at least one class a share above 0")
    return tuple(ClassSpec(name=name, share=share / total, **slos[name]) for name, share in shares.items())


def violations(
    classes: tuple[ClassSpec, ...],
    loads_qps: Sequence[float],
    requests: int,
    seeds: int = 1,
    trace: str = TRACE,
    systems: Sequence[str] = SYSTEMS,
    **more: Any,
) -> dict[str, pd.DataFrame]:
    """The table `summary` of every system at every load, as figures take it.

    more: other fields of RunSpec, such as low_importance_share or latency. ConfigError on values that make no sense.
    """
    one = {"trace": trace, "system": systems[0], "load_qps": float(loads_qps[0]), "requests": requests}
    specs = every(RunSpec(**one, classes=classes, **more), systems, loads_qps, seeds)
    frame = pd.DataFrame(run_rows(specs))
    frame.attrs = {"backend": BACKEND, "classes": [one.model_dump() for one in classes]}
    return {"summary": frame}


def at_load(tables: Mapping[str, pd.DataFrame], load_qps: float) -> pd.DataFrame:
    """Violated requests in per cent at one load: a row per system, a column per group; means over seeds."""
    frame = tables["summary"]
    rows = frame[frame["load_qps"] == load_qps]
    wide = rows.pivot_table(index="system", columns="group", values="violation_rate", sort=False)
    return (100 * wide).round(1).rename_axis(columns=f"violated at {load_qps:g} QPS (%)")


def sliders(trace: str = TRACE, requests: int = REQUESTS) -> None:
    """The figure of violations beside sliders for SLOs, mix and loads; one line where ipywidgets is not installed."""
    try:
        import ipywidgets as widgets
    except ModuleNotFoundError:
        print("ipywidgets is not installed: change the variables above and run their cells again")
        return
    # a slider reports when it is let go, not on the way
    knobs = {
        name: widgets.FloatSlider(value=value, min=low, max=high, description=name, continuous_update=False)
        for name, (value, low, high) in SLIDERS.items()
    }
    image = widgets.Image(format="png", width=WIDTH_PIXELS)

    def redraw(_: object = None) -> None:
        image.value = _picture(trace, requests, {name: knob.value for name, knob in knobs.items()})

    for knob in knobs.values():
        knob.observe(redraw, names="value")
    redraw()
    display(widgets.HBox([widgets.VBox(list(knobs.values())), image]))


def _picture(trace: str, requests: int, values: Mapping[str, float]) -> bytes:
    """Fig 11 at six loads up to the highest, as PNG."""
    slos = {
        "Q1": {"ttft_s": values["Q1 TTFT, s"], "tbt_s": values["Q1 TBT, ms"] / 1e3},
        "Q2": {"ttlt_s": values["Q2 TTLT, s"]},
        "Q3": {"ttlt_s": values["Q3 TTLT, s"]},
    }
    shares = {name: values[f"{name} share"] for name in slos}
    loads_qps = np.linspace(0.25, 1.0, 6) * values["up to, QPS"]
    tables = violations(mixed(shares, slos), loads_qps, requests, trace=trace)
    return style.image_bytes(fig11.draw(tables, fig11.variants(tables)[0]), "png")
