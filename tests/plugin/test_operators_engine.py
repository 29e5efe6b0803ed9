"""The operators' scenario on vLLM's engine in virtual time is the simulated one, but for a step planned ahead."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.config import ConfigError
from artifact.engine.operators import engine_rows
from artifact.experiments.operators import AIMD, operators
from artifact.experiments.panel_config import Operators

pytestmark = pytest.mark.engine
LATENCY = "a100-llama3-8b-roofline"
SCENARIO = Operators(
    systems=("vllm-priority", "niyama"), latencies=(LATENCY,), replicas=(1,), high_qps=8.0, low_qps=1.0, dwell_s=4.0,
    cycles=1, job_requests=15, windows_s=(60.0, 600.0), ttft_s=1.0, tbt_s=0.05, seeds=1,
)  # fmt: skip


@pytest.mark.parametrize("system", SCENARIO.systems)
def test_the_engine_serves_the_scenario_as_the_simulator_does(system, tmp_path):
    found = engine_rows(SCENARIO, system, LATENCY, 0, tmp_path)
    (expected,) = operators(SCENARIO.model_copy(update={"systems": (system,)}), LATENCY)
    assert (found["backend"], expected["backend"]) == ("vllm-virtual", "sim")
    assert found["requests"] == expected["requests"] and found["windows_met"] == expected["windows_met"] == 2
    assert found["jobs_done_s"] == pytest.approx(expected["jobs_done_s"], rel=0.1)
    assert found["ttft_p50_s"] == pytest.approx(expected["ttft_p50_s"], abs=0.1)  # planned ahead: a step later


def test_a_gateway_is_no_engine(tmp_path):
    with pytest.raises(ConfigError, match="'vllm-fcfs behind AIMD'; an engine in virtual time is one of"):
        engine_rows(SCENARIO, AIMD, LATENCY, 0, tmp_path)
