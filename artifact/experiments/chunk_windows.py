"""Fig 9 and 15a: what consecutive iterations looked like, and the throughput that comes of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from artifact.experiments.panel_config import Throughput, Window
from artifact.runs.rows import identity
from artifact.runs.run import run
from niyama.sim import LOG_COLUMNS

COUNTED = ("decodes", "decode_context_tokens", "prefill_tokens", "prefill_requests", "queued", "kv_free_blocks")


def chunk_windows(windows: Mapping[str, Window], latency: str) -> list[dict[str, object]]:
    """A row per figure, system and iteration; iteration 0 is the first of the run's second half.

    Columns as in the iteration log; min_slack_s is null where no decode has a deadline.
    """
    rows = []
    for figure, window in windows.items():
        for done in (run(spec, log=True) for spec in window.specs(latency)):
            log = done.run.log[:, 1:]
            log = log[len(log) // 2 :]
            if window.prefill_only:
                log = log[log[:, LOG_COLUMNS.index("prefill_tokens")] > 0]
            about = {"figure": figure, **identity(done)}
            rows += [{**about, "iteration": i, **_columns(row)} for i, row in enumerate(log[: window.iterations])]
    return rows


def _columns(row: np.ndarray) -> dict[str, object]:
    values = {name: float(value) for name, value in zip(LOG_COLUMNS, row, strict=True)}
    values |= {name: int(values[name]) for name in COUNTED}
    return values | {"min_slack_s": values["min_slack_s"] if np.isfinite(values["min_slack_s"]) else None}


def chunk_throughput(panel: Throughput, latency: str) -> list[dict[str, object]]:
    """A row per run: tokens (prompt and output) per second of the iterations that prefill, and of the whole run.

    busy_tokens_per_s: how fast the replica works while there is a prompt to work on; the same requests under every
    system. run_tokens_per_s: all tokens over the time to the last one; far above capacity, what the replica can do.
    """
    rows = []
    for done in (run(spec, log=True) for spec in panel.specs(latency)):
        log = dict(zip(LOG_COLUMNS, done.run.log[:, 1:].T, strict=True))
        busy = log["prefill_tokens"] > 0
        tokens = (log["prefill_tokens"] + log["decodes"])[busy].sum()
        all_tokens = int(done.requests.prompt_tokens.sum(dtype=np.int64) + done.requests.output_tokens.sum())
        rows.append(
            {
                **identity(done),
                "busy_tokens_per_s": float(tokens / log["duration_s"][busy].sum()),
                "run_tokens_per_s": float(all_tokens / done.run.token_s.max()),
                "mean_chunk_tokens": float(log["prefill_tokens"][busy].mean()),
                "busy_share": float(log["duration_s"][busy].sum() / log["duration_s"].sum()),
            }
        )
    return rows
