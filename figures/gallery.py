"""Where each figure belongs: its part of the paper and the notebook that shows it. Said here, and only here.

Both reports are grouped by part of the paper, the notebooks by group. A figure that is not in the list appears all the
same, among what is not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from figures import PAPER_FIGURES, SERVER_FIGURES

#: Parts of the paper (QoServe, ASPLOS'26), in the order of the reports, which is also that of their names: Snakemake's
#: report sorts by name. "4.x": section 4 after 4.3.
PARTS = {
    "motivation": "2 Motivation: policies of today",
    "design": "3 Design: chunks, slack and relegation",
    "capacity": "4.1 Goodput and GPUs",
    "load": "4.2 Latency and violations against load",
    "overload": "4.3 Overload",
    "analysis": "4.x Ablation, and other settings",
    "others": "4.x Comparison with other schedulers",
    "beyond": "Not in the paper",
}
#: Notebooks, by the name of their file in notebooks/.
GROUPS = ("capacity", "load_sweeps", "overload", "chunking", "servers", "predictor", "beyond")


@dataclass(frozen=True)
class Place:
    """Where a figure belongs. part: a key of `PARTS`; group: one of `GROUPS`."""

    part: str
    group: str


ELSEWHERE = Place("beyond", "beyond")
#: By the start of a module's name: `fig7` stands for fig7, fig7_ratios and whatever else belongs to Fig 7.
PLACES = {
    "fig1": Place("capacity", "capacity"),
    "fig2": Place("motivation", "load_sweeps"),
    "fig4": Place("design", "chunking"),
    "fig5": Place("design", "load_sweeps"),
    "fig6": Place("design", "chunking"),
    "fig7": Place("capacity", "capacity"),
    "fig8": Place("capacity", "capacity"),
    "fig9": Place("analysis", "chunking"),
    "fig10": Place("load", "load_sweeps"),
    "fig11": Place("load", "load_sweeps"),
    "fig12": Place("overload", "overload"),
    "fig13": Place("overload", "overload"),
    "fig14": Place("analysis", "load_sweeps"),
    "fig15a": Place("others", "chunking"),
    "fig15b": Place("others", "capacity"),
    "table4": Place("capacity", "capacity"),
    "table5": Place("analysis", "capacity"),
    "table6": Place("analysis", "overload"),
    "fig_engine": Place("beyond", "servers"),
    "fig_servers": Place("beyond", "servers"),
    "fig_slo_set": Place("analysis", "overload"),
    "predictor_accuracy": Place("design", "predictor"),
    "fig_predictor": Place("beyond", "predictor"),
    "fig_steady": Place("beyond", "predictor"),
    "fig_decode_length": Place("beyond", "predictor"),
}


def place(figure: str) -> Place:
    """Where a figure belongs."""
    return next((found for start, found in PLACES.items() if f"{figure}_".startswith(f"{start}_")), ELSEWHERE)


def group_figures(group: str) -> list[str]:
    """Names of a group's figures, part by part. ValueError for a group that is none."""
    if group not in GROUPS:
        raise ValueError(f"group {group!r} is unknown; use one of {', '.join(GROUPS)}")
    everything = (*PAPER_FIGURES, *SERVER_FIGURES)
    return [name for _, names in by_part(everything) for name in names if place(name).group == group]


def by_part(figures: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The title of each part of the paper that has some of these figures, and those, in the order given."""
    given = list(figures)
    for part, title in PARTS.items():
        names = [name for name in given if place(name).part == part]
        if names:
            yield title, names
