"""The square wave of load of Fig 12 and 13: its columns, and a line that describes it."""

from __future__ import annotations

import pandas as pd

COLUMNS = ("low_qps", "high_qps", "dwell_s", "low_importance_share")


def describe_load(frame: pd.DataFrame) -> str:
    """One line describing the square wave, which is the same in all rows of `frame`."""
    wave = frame.iloc[0]
    return (
        f"{wave['low_qps']:g} and {wave['high_qps']:g} QPS in turn, {wave['dwell_s'] / 60:g} min each, "
        f"{wave['low_importance_share']:.0%} of the requests of low importance".replace("%", " %")
    )
