"""Servers at a single load: a check that they start, serve every request and stop, shown as a table, not as a curve."""

from __future__ import annotations

import pandas as pd

from figures import style


def is_check(measured: pd.DataFrame) -> bool:
    """Whether these rows of real servers are too few to draw over load: one load, or none."""
    return len(measured) == 0 or int(measured.groupby("system")["load_qps"].nunique().max()) < 2


def outcomes(measured: pd.DataFrame) -> pd.DataFrame:
    """What came out, a row per system and seed: a point is in the table only when every request got every token."""
    if len(measured) == 0:
        return pd.DataFrame({"system": [], "requests": [], "completed": []})
    rows = measured[measured["group"] == "all"]
    attempts = rows["attempts"] if "attempts" in rows else pd.Series(1, rows.index)
    late = rows["busy"].eq(True) if "busy" in rows else pd.Series(False, rows.index)
    return pd.DataFrame(
        {
            "system": [style.look(name).label for name in rows["system"]],
            "servers": rows["replicas"].to_numpy(),
            "requests": rows["requests"].to_numpy(),
            "completed": rows["group_requests"].to_numpy(),
            "client lag p99 ms": [style.number_text(1e3 * lag_s, 1) for lag_s in rows["lag_p99_s"]],
            "attempts": attempts.astype(int).to_numpy(),
            "machine": ["busy" if busy else "quiet enough" for busy in late],
        }
    )


def note(measured: pd.DataFrame) -> str:
    """What the table says; measured: its `attrs` say with what."""
    about = measured.attrs
    return (
        f"A check, not a measurement: servers ({about.get('vllm', 'vLLM, version not recorded')}, over HTTP, in real "
        f"time) started, served what arrived over {about.get('seconds', float('nan')):g} s at one load, and stopped. "
        "A run counts only when every request got every token. How well each system serves is shown in virtual time; "
        "`snakemake --cores all servers` measures it in real time."
    )
