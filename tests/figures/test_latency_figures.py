"""Fig 7b and 7c, and the accuracy of predictors."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from figures import fig7_models, paper, predictor_accuracy, style
from figures.frames import Variant
from niyama.latency import model_names

QWEN, LLAMA = "a100-tp2-qwen-7b", "h100-tp4-llama3-70b"


def stars(ax) -> dict[float, str]:
    """Value and face colour of each star."""
    own = [line for line in ax.lines if line.get_marker() == "*"]
    return {float(line.get_xdata()[0]): line.get_markerfacecolor() for line in own}


def test_fig7_models_has_a_drawing_of_every_card(frames):
    names = [variant.latency for variant in fig7_models.variants(frames)]
    assert names == [f"{name}-{part}" for name in (QWEN, LLAMA) for part in ("engine", "kernels")]
    assert set(names) <= set(model_names())


def test_stars_whose_bar_cannot_be_read_for_sure_are_hollow(frames):
    variant = Variant(f"{QWEN}-engine")
    axes = fig7_models.draw(frames, variant).axes
    found = {value: face for ax in axes for value, face in stars(ax).items()}
    assert found == {3.1: "black", 3.8: "black", 5.0: "white"}
    assert "Hollow stars" in fig7_models.caption(frames, variant)


def test_labels_that_no_bar_can_be_given_are_in_the_caption_and_not_drawn(frames):
    variant = Variant(f"{LLAMA}-kernels")
    assert all(not stars(ax) for ax in fig7_models.draw(frames, variant).axes)  # both made-up traces are Azure
    caption = fig7_models.caption(frames, variant)
    assert "1.7, 2.2, 2.5, 3, 3.7, 3.9" in caption and "cannot be recovered" in caption
    assert paper.goodput("sharegpt-8k", "niyama", variant.latency).value == 2.2


def test_which_model_is_measured_and_which_assumed_is_said(frames):
    assert "assumption" in fig7_models.caption(frames, Variant(f"{QWEN}-engine"))
    assert "no engine beats" in fig7_models.caption(frames, Variant(f"{QWEN}-kernels"))


def test_the_tables_of_fig7_models_have_both_models(frames):
    assert set(fig7_models.table(frames)["latency"]) == {v.latency for v in fig7_models.variants(frames)}
    rows = fig7_models.text_table(frames)
    assert "long N" not in rows.columns
    assert {"3.10", "5.00?"} <= set(rows["paper"])


def test_boxes_are_the_tables_quartiles(frames):
    (variant,) = predictor_accuracy.variants(frames)
    figure = predictor_accuracy.draw(frames, variant)
    assert isinstance(figure, Figure)
    assert min(text.get_fontsize() for text in figure.findobj(lambda a: hasattr(a, "get_fontsize"))) >= style.SMALL_PT
    for ax, wide in zip(figure.axes, (1, 2), strict=True):
        boxes = [p for p in ax.patches if p.get_facecolor()[:3] != (0.9372549019607843,) * 3]
        assert len(boxes) == 2 * 3
        lows = sorted(round(box.get_x(), 6) for box in boxes)
        assert lows == pytest.approx(sorted([k - 2.5 * wide * k for k in (1, 2, 3)] * 2), abs=1e-6)
    assert "10 %" in predictor_accuracy.caption(frames, variant)


def test_errors_beyond_the_axes_are_marked(frames):
    frame = frames["predictor_accuracy"].copy()
    frame["ratio_quantiles"] = [np.linspace(0.1, 3.0, 101).tolist() for _ in range(len(frame))]
    figure = predictor_accuracy.draw({"predictor_accuracy": frame}, Variant("profiles"))
    ends = [line.get_marker() for line in figure.axes[0].lines if line.get_marker() in "<>"]
    assert ends.count("<") == ends.count(">") == 2 * 3


def test_the_text_table_is_in_percent(frames):
    rows = predictor_accuracy.text_table(frames)
    assert list(rows["mean error, %"].unique()) == ["3.0", "6.0", "9.0"]
    assert "ratio_quantiles" not in predictor_accuracy.table(frames)
