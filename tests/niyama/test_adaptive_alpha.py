"""Load-adaptive alpha: high above load_high_s of queued prefill work, low below load_low_s, unchanged between."""

import numpy as np
import pytest

from niyama import load_card, load_policy
from niyama.kernel import Kernel
from niyama.plan import adapt_alpha
from niyama.queues import IMPORTANT, has_head, pop
from niyama.requests import fill, new_table
from niyama.state import new_state
from niyama.waiting import enqueue

POLICY = load_policy("niyama-adaptive")
FULL_STEP_S = 0.25  # 2,500 tokens: 10,000 tokens/s


def queued(prompts):
    """Interactive requests queued under alpha 1 ms, one per prompt, each arriving half a second after the last."""
    n = len(prompts)
    table, state = new_table(n), new_state(n, 8, 1, 160_000, POLICY.alpha_low)
    fill(
        table,
        arrival_s=0.5 * np.arange(n),
        prompt_tokens=np.array(prompts),
        deadline_slo_s=np.full(n, 6.0),
        tbt_s=np.full(n, 0.05),
        interactive=np.ones(n, bool),
        important=np.ones(n, bool),
        app=np.zeros(n, int),
    )
    kernel = Kernel(state, table, POLICY.params(), POLICY.rules(), load_card("a100-llama3-8b-linear").build())
    for r in range(n):
        enqueue(kernel, r)
    return kernel


def test_alpha_switches_with_hysteresis():
    """Seconds of queued work 2, 5, 6.5, 5, 3.1, 2.9, 5: high from 6.5 on, low again at 2.9."""
    kernel = queued([100])
    seen = []
    for queued_s in (2.0, 5.0, 6.5, 5.0, 3.1, 2.9, 5.0):
        kernel.state.totals["queued_prefill_tokens"] = int(queued_s * 10_000)
        adapt_alpha(kernel, FULL_STEP_S)
        seen.append(kernel.state.totals["alpha"])
    assert seen == [0.001, 0.001, 0.008, 0.008, 0.008, 0.001, 0.001]


def test_a_switch_orders_the_queue_anew():
    """At 1 ms per token the older long prompt leads (6.4 against 6.6); at 8 ms the short one does (9.2 against 7.3)."""
    kernel = queued([400, 100])
    state, table = kernel.state, kernel.table
    assert table.key == pytest.approx([6.4, 6.6])
    assert has_head(state.queues, table, IMPORTANT) and state.queues.ids[IMPORTANT, 0] == 0
    state.totals["queued_prefill_tokens"] = 100_000
    adapt_alpha(kernel, FULL_STEP_S)
    assert table.key == pytest.approx([9.2, 7.3])
    order = [pop(state.queues, table, IMPORTANT) for _ in range(2) if has_head(state.queues, table, IMPORTANT)]
    assert order == [1, 0]
