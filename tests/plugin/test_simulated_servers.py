"""Simulated stock vLLM and vLLM's own engine in virtual time: the same requests, by token.

Not identical as with Niyama: while a request's last token is in flight the simulator still counts it into the budget
that decodes and chunk share, so that a chunk may be a token shorter (0.1 ms), and a prompt then end a step later.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.runs.spec import ClassSpec
from artifact.servers.command_line import A100_BATCHED_TOKENS
from artifact.servers.model_files import model_folder
from artifact.servers.simulated import simulated_system
from artifact.servers.split_run import part_of
from artifact.servers.systems import FCFS, PRIORITY, SILO, build_server_system
from niyama import PAPER_CLASSES, load_card
from niyama.sim import Run, simulate
from niyama.vllm.emulated.virtual import EngineSettings, Traffic, run_virtual
from tests.helpers.emulated_runs import random_requests

pytestmark = pytest.mark.engine
CARD = load_card("a100-llama3-8b-linear")
P95_APART_S, STEP_S = 0.015, 0.25  # the longest step: 2,048 tokens
AHEAD = {"overlapped": True, "started_first": True}
MIX = tuple(ClassSpec(name=c.name, share=1 / 3, ttft_s=c.ttft_s, tbt_s=c.tbt_s, ttlt_s=c.ttlt_s) for c in PAPER_CLASSES)


def check(vllm: Run, sim: Run) -> None:
    apart_s = np.abs(vllm.token_s - sim.token_s)
    assert vllm.iterations == sim.iterations
    assert np.quantile(apart_s, 0.95) <= P95_APART_S and apart_s.max() <= STEP_S


@pytest.mark.parametrize("name, policy", [(FCFS, "fcfs"), (PRIORITY, "priority")])
@pytest.mark.parametrize("load_qps", [8.0, 20.0])
def test_stock_vllm_and_its_simulation_agree(tmp_path: Path, name: str, policy: str, load_qps: float) -> None:
    requests = random_requests(200, load_qps)
    engine = EngineSettings(
        model_folder("llama3-8b", tmp_path), policy=policy, max_num_batched_tokens=A100_BATCHED_TOKENS
    )
    numbers = dict(build_server_system(name, MIX).priorities)
    priority = [numbers.get(requests.classes[k].name, 0) for k in requests.class_index]
    vllm = run_virtual(Traffic(requests, priority=priority), CARD, engine)
    sim = simulate(
        simulated_system(name, MIX, (1,), CARD.hardware), requests, CARD, CARD, overlapped=True, started_first=True
    )
    check(vllm, sim)
    behind = simulate(simulated_system(name, MIX, (1,), CARD.hardware), requests, CARD, CARD)
    assert np.abs(vllm.token_s - behind.token_s).max() > 2 * STEP_S, "one that does not plan ahead is another"


def test_a_silos_interactive_pool_does_too(tmp_path: Path) -> None:
    requests = random_requests(200, 6.0)
    system = build_server_system(SILO, MIX)
    pool = system.pools[0]
    engine = EngineSettings(model_folder("llama3-8b", tmp_path), max_num_batched_tokens=pool.batched_tokens)
    requests = part_of(requests, np.flatnonzero(requests.class_index == 0))
    vllm = run_virtual(Traffic(requests), CARD, engine)
    sim = simulate(
        simulated_system(SILO, MIX, (1, 1), CARD.hardware), requests, CARD, CARD, overlapped=True, started_first=True
    )
    check(vllm, sim)
