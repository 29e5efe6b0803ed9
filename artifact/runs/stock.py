"""Stock vLLM as policies of the simulator: first come, first served, and its priority queue, with its step budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from niyama import BUILT_IN, Policy
from niyama.rule_kinds import rank_rule

VLLM_FCFS, VLLM_PRIORITY = "vllm-fcfs", "vllm-priority"
#: vLLM's own default on an A100; stated, because the default looks at the machine, which is not what is emulated.
A100_BATCHED_TOKENS = 2048
#: GPUs on which a vLLM server's default is more (EngineArgs.get_batch_defaults: by memory, 70 and 160 GiB).
MORE_BATCHED_TOKENS = {"h100": 8192, "h200": 8192, "b200": 16_384, "b300": 16_384}
SECONDS_APART = 1e6  # longer than any run: an earlier class comes first whatever the arrival


def default_batched_tokens(hardware: str) -> int:
    """Budget of a step that a vLLM server takes by itself on a GPU of that name."""
    return next((n for name, n in MORE_BATCHED_TOKENS.items() if name in hardware.lower()), A100_BATCHED_TOKENS)


@rank_rule
def by_class_then_arrival(job: Any, alpha: float) -> float:
    """vLLM's priority queue: the more urgent class first, arrival within a class; started prompts before all."""
    if job.prefill_left < job.prompt_tokens:
        return job.arrival_s - SECONDS_APART
    urgency = 0.0 if job.interactive else job.deadline_s - job.arrival_s
    return urgency * SECONDS_APART + job.arrival_s


def stock_policy(name: str, hardware: str) -> Policy:
    """VLLM_FCFS or VLLM_PRIORITY on a GPU of that name."""
    fcfs = replace(BUILT_IN["sarathi-fcfs-2048"], max_chunk_tokens=default_batched_tokens(hardware))
    return fcfs if name == VLLM_FCFS else replace(fcfs, name=VLLM_PRIORITY, rank=by_class_then_arrival)
