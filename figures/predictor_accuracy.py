"""Predictor accuracy: held-out steps and chunk sizes, for the paper's forest, the artifact's linear model and ours."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures import style
from figures.frames import Tables, Variant, require

TITLE = "Predictor accuracy (section 3.6.1)"
INPUTS = ("predictor_accuracy",)
COLUMNS = (
    "profile",
    "predictor",
    "test",
    "part",
    "count",
    "mean_abs",
    "p90_abs",
    "bias",
    "within_claim",
    "above",
    "margin",
    "ratio_quantiles",
)
#: Kind of card -> label and colour, which is no system's.
LABELS = {
    "forest": "random forest (paper)",
    "two-bin-linear": "two-bin linear (artifact)",
    "monotone": "monotone (ours)",
}
LOOKS = {kind: (label, colour) for (kind, label), colour in zip(LABELS.items(), style.ramp(len(LABELS)), strict=True)}
PROFILES = {
    "a100-llama3-8b-kernels": "Llama-3-8B, A100:\nmeasured kernels",
    "a100-tp2-qwen-7b-kernels": "Qwen-7B, 2 A100:\nmeasured kernels",
    "h100-tp4-llama3-70b-kernels": "Llama-3-70B, 4 H100:\nmeasured kernels",
    "a100-llama3-8b-linear": "authors' linear model\non a grid",
}
#: Test and part -> title of its panel.
PANELS = {
    ("steps", "all"): "step time, held-out steps",
    ("chunks", "all"): "largest chunk within a slack",
}
CLAIM = 10.0  # %, of the chunk size
BOX, WHISKER = (25, 75), (5, 95)  # percentiles
REACH = 42.0  # %, of the axes; what goes beyond is cut, with an arrow


def variants(tables: Tables) -> list[Variant]:
    """One drawing, of all profiles."""
    require(tables, "predictor_accuracy", COLUMNS)
    return [Variant("profiles")]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        "Errors of three families of predictor fitted to the same profiles, predicted over true. Left: times of steps "
        "whose shape was held out (five folds over shapes). Right: the largest chunk within a slack of 30 to 400 ms, "
        "over the one that truly does, beside decodes and behind prefixes that were held out whole. Boxes: quartiles; "
        "whiskers: 5th and 95th percentile; dots: median. Grey: the 10 % that the paper claims for the chunk size. "
        "The forest is a step function, so that its chunks jump where its steps do. The kernels' times are means, "
        "without noise. The authors' grid is a linear model, so that the linear family is exact by "
        "construction up to where its bins are cut."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """A row of boxes per profile and predictor in both panels."""
    frame = require(tables, "predictor_accuracy", COLUMNS)
    profiles = [name for name in PROFILES if name in set(frame["profile"])]
    profiles += sorted(set(frame["profile"]) - set(profiles))
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 1.15 + 0.62 * len(profiles))
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for ax, ((test, part), title) in zip(panels, PANELS.items(), strict=True):
            own = frame[(frame["test"] == test) & (frame["part"] == part)].set_index(["profile", "predictor"])
            _panel(ax, own, profiles)
            ax.set_title(title)
            if test == "chunks":
                ax.axvspan(-CLAIM, CLAIM, color="#EFEFEF", zorder=0)
        handles = [Patch(color=colour, label=label) for label, colour in LOOKS.values()]
        style.legend_above(figure, handles, len(handles))
        whole = frame[frame["part"] == "all"].set_index("test")["count"]
        steps, chunks = (style.counted(whole[[test]]) for test, _ in PANELS)
        text = f"Profiles: {len(profiles)}, each with {steps} held-out steps and {chunks} chunks, by predictor."
        figure.supxlabel(text, x=0.01, ha="left", fontsize=style.SMALL_PT, color=style.FAINT)
    return figure


def _panel(ax: Axes, own: pd.DataFrame, profiles: Sequence[str]) -> None:
    step = 1.0 / (len(LOOKS) + 1)
    for lane, profile in enumerate(profiles):
        for i, kind in enumerate(LOOKS):
            if (profile, kind) in own.index:
                _box(ax, lane + (i - 1) * step, own.loc[(profile, kind)], LOOKS[kind][1], step)
    ax.axvline(0, color=style.INK, lw=0.6, zorder=1)
    ax.set_yticks(range(len(profiles)), [PROFILES.get(name, name) for name in profiles])
    ax.set_ylim(len(profiles) - 0.5, -0.5)
    ax.set_xlim(-REACH, REACH)
    ax.set_xlabel("predicted over true, minus one (%)", labelpad=2)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _box(ax: Axes, y: float, row: pd.Series, colour: str, step: float) -> None:
    percent = [100 * (value - 1) for value in row["ratio_quantiles"]]
    low, high = (percent[q] for q in WHISKER)
    ax.plot([low, high], [y, y], color=colour, lw=0.9, zorder=3)
    ax.barh(y, percent[BOX[1]] - percent[BOX[0]], left=percent[BOX[0]], height=0.72 * step, color=colour, zorder=4)
    ax.plot(percent[50], y, "o", ms=2.6, mfc="white", mec=style.INK, mew=0.5, zorder=5)
    for end, side in ((low, -1), (high, 1)):
        if abs(end) > REACH and side * end > 0:
            ax.plot(side * 0.985 * REACH, y, marker="<" if side < 0 else ">", ms=3, color=colour, zorder=5)


def table(tables: Tables) -> pd.DataFrame:
    """The table as it is, without the quantiles."""
    return require(tables, "predictor_accuracy", COLUMNS).drop(columns="ratio_quantiles")


def text_table(tables: Tables) -> pd.DataFrame:
    """As formatted text: errors of steps by region, of chunks by slack, in %; the margin is that of the predictor."""
    rows = table(tables)
    percent = {column: rows[column].map(lambda v: style.number_text(100 * v, 1)) for column in PERCENT}
    return pd.DataFrame(
        {
            "profile": rows["profile"],
            "predictor": rows["predictor"].map(lambda kind: LOOKS.get(kind, (kind,))[0]),
            "test": rows["test"],
            "part": rows["part"],
            "count": rows["count"].map(lambda n: style.number_text(n, 0)),
            **{title: percent[column] for column, title in PERCENT.items()},
            "margin for 95 % of steps": rows["margin"].map(lambda v: style.number_text(v, 3)),
        }
    )


PERCENT = {
    "mean_abs": "mean error, %",
    "p90_abs": "p90 error, %",
    "bias": "bias, %",
    "within_claim": "within 10 %, % of cases",
    "above": "predicted above true, % of cases",
}
