"""The load of Fig 12 and 13, which toggles: what a table says of it, and the same in words."""

from __future__ import annotations

import pandas as pd

COLUMNS = ("low_qps", "high_qps", "dwell_s", "low_importance_share")


def words(frame: pd.DataFrame) -> str:
    """The load that all rows of `frame` have, in words."""
    wave = frame.iloc[0]
    return (
        f"{wave['low_qps']:g} and {wave['high_qps']:g} QPS in turn, {wave['dwell_s'] / 60:g} min each, "
        f"{wave['low_importance_share']:.0%} of the requests of low importance".replace("%", " %")
    )
