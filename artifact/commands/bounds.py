"""What a number on the command line may be, by the option's name: one place for all commands."""

from __future__ import annotations

import argparse

from artifact.config import LEAST_QPS, LEAST_STEP_QPS, MOST_QPS, MOST_REQUESTS, MOST_SEED, ConfigError

#: Least and most. Loads, noise and shares are checked where a run is specified (`RunSpec`).
BOUNDS = {
    "requests": (1, MOST_REQUESTS),
    "seed": (0, MOST_SEED),
    "seeds": (1, 1000),
    "jobs": (1, 64),
    "step": (LEAST_STEP_QPS, MOST_QPS),
    "capacity": (0.001, MOST_QPS),
    "qps": (LEAST_QPS, MOST_QPS),
    "gpu_hour": (0.001, 10_000),
    "headroom": (0, 10),
    "cold_start": (0, 86_400),
    "repeats": (1, 10_000),
    "http": (0, 1000),
    "port": (1, 65_535),
    "devices": (1, 1024),
    "max_lag_ms": (0.001, 1e6),
    "speed": (1e-6, 1e6),
    "max_total_tokens": (2, 2**31 - 1),
}


def check_numbers(options: argparse.Namespace) -> None:
    """ConfigError for the first number that is not within BOUNDS; nan is within none."""
    for name, (low, high) in BOUNDS.items():
        value = getattr(options, name, None)
        if isinstance(value, int | float) and not low <= value <= high:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; give a number from {low:g} to {high:.10g}")
