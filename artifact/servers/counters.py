"""What only the server knows of a run: vLLM's own counters, from /metrics."""

from __future__ import annotations

from http.client import HTTPException

from artifact.servers.process import REQUEST_TIMEOUT_S, ServerError, open_url

#: Column of the results -> vLLM's metric.
COUNTERS = {"iterations": "vllm:iteration_tokens_total_count", "preemptions": "vllm:num_preemptions_total"}


def read_counters(url: str) -> dict[str, int]:
    """Each counter's value now, summed over its labels. ServerError when the server does not give one."""
    try:
        with open_url(f"{url}/metrics", REQUEST_TIMEOUT_S) as answer:
            lines = answer.read().decode().splitlines()
    except (OSError, HTTPException) as error:
        raise ServerError(f"{url}/metrics cannot be read ({error})") from None
    return {column: _total(lines, metric, url) for column, metric in COUNTERS.items()}


def _total(lines: list[str], metric: str, url: str) -> int:
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric}{{", f"{metric} "))]
    if not values:
        raise ServerError(f"{url}/metrics has no {metric}; this version of vLLM counts otherwise")
    return round(sum(values))
