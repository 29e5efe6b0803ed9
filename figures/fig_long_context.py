"""Long contexts: violations against load on Mooncake's conversations. Not in the paper."""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import style, violation_lines
from figures.frames import Tables, Variant, require, traces_and_latencies

TITLE = "Long contexts (not in the paper)"
INPUTS = ("long_context",)


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "long_context", violation_lines.COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Violated requests on {style.trace_label(variant.trace)}, a trace of long contexts, with the SLOs of Table 3; "
        f"latency model {variant.latency}; not in the paper. A prompt of more than 40,000 to 50,000 tokens takes "
        "longer than Q1's 6 s by itself, so Q1 has violations at any load. Solid: TTFT and TTLT; thin dashed, for "
        "Niyama: token deadlines (Eq 2) counted too. Bands: 95 % interval over seeds. Both latency "
        "models were made for short contexts, so this says less about a GPU than about the policies."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """Panels as in Fig 11."""
    return violation_lines.draw(variant.rows(require(tables, "long_context", violation_lines.COLUMNS)))
