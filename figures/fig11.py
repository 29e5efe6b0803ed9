"""Fig 11: share of violated requests against load: overall, by prompt length and by class."""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import style, violation_lines
from figures.frames import Tables, Variant, require, traces_and_latencies

TITLE = "Fig 11: violations against load"
INPUTS = ("summary",)


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "summary", violation_lines.COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Fig 11: violated requests on {style.trace_label(variant.trace)}, latency model {variant.latency}. Solid: "
        "TTFT and TTLT violations, as in the paper; thin dashed, for Niyama and the authors' artifact only: token "
        "deadlines (Eq 2) counted too. “Overall” is the share of all requests that arrived. Bands: 95 % interval over "
        "seeds. Above capacity the values depend on N. The paper prints no numbers for this figure."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per group of requests."""
    return violation_lines.draw(variant.rows(require(tables, "summary", violation_lines.COLUMNS)))
