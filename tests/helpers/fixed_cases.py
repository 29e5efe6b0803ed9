"""Run fixed odd cases under every policy and save whole results: `python -m tests.helpers.fixed_cases OUT.npz`."""

import sys
from dataclasses import astuple, fields, replace

import numpy as np

from niyama.sim import Run
from tests.helpers.workloads import EVERY_POLICY, LINEAR, ROOFLINE, Case, kv_for, random_requests

CASES = (  # classes, prompts, outputs, gaps, spare KV, noise, numbers in place of the policy's own
    ("paper", "typical", "mixed", "bursts", 400_000, 0.1, {}),
    ("mixed", "edges", "few", "at once", 5_000, 0.0, {"estimator": "quantile", "estimator_value": 0.7}),
    ("tight", "short", "mixed", "steady", 16, 0.3, {"kv_reserve": 0.0}),
    ("mixed", "typical", "mixed", "sparse", 400, 0.2, {"max_running": 3, "kv_low_tokens": 0}),
    ("absurd", "long", "few", "bursts", 5_000, 0.1, {"kv_low_tokens": 0}),
)


def case(number: int) -> Case:
    """The case of that number; its models alternate."""
    classes, prompts, outputs, gaps, spare, noise, overrides = CASES[number]
    requests = random_requests(np.random.default_rng(number), 16, classes, prompts, outputs, gaps, 0.6)
    executor, predictor = (LINEAR, ROOFLINE) if number % 2 else (ROOFLINE, LINEAR)
    executor = replace(executor, kv_tokens=kv_for(requests, spare))
    return Case(requests, executor, predictor, noise, number, tuple(overrides.items()))


def main(out: str) -> None:
    results = {}
    for number in range(len(CASES)):
        for name in EVERY_POLICY:
            run = case(number).run(case(number).policy(name))
            for field, value in zip(fields(Run), astuple(run), strict=True):
                results[f"case {number} {name} {field.name}"] = np.asarray(value)
    np.savez(out, **results)


if __name__ == "__main__":
    main(sys.argv[1])
