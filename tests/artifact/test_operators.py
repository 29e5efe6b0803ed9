"""The operators' scenario, and servers behind a gateway."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from artifact.config import ConfigError
from artifact.experiments.gateway import Aimd, Open, serve
from artifact.experiments.operators import AIMD, ALONE, arriving, classes_of, measured, operators, policy_of
from artifact.experiments.panel_config import Operators
from niyama import BUILT_IN, PAPER_CLASSES, QoSClass, load_card
from niyama.sim import Requests, shared, simulate

ROOFLINE = "a100-llama3-8b-roofline"

CARD = load_card(ROOFLINE)
SMALL = Operators(
    systems=("niyama",), latencies=(ROOFLINE,), replicas=(1,), high_qps=12.0, low_qps=1.0, dwell_s=6.0, cycles=2,
    job_requests=40, windows_s=(60.0, 600.0), ttft_s=1.0, tbt_s=0.05, seeds=1,
)  # fmt: skip


def some_requests(n=200, qps=6.0, seed=1, classes=PAPER_CLASSES):
    rng = np.random.default_rng(seed)
    return Requests(
        classes,
        rng.integers(0, len(classes), n).astype(np.int16),
        np.cumsum(rng.exponential(1 / qps, n)),
        rng.integers(50, 3000, n).astype(np.int32),
        rng.integers(1, 120, n).astype(np.int32),
        rng.random(n) > 0.2,
    )


@pytest.mark.parametrize("name", ["sarathi-fcfs", "niyama", "niyama-steady", "qoserve-artifact"])
def test_one_server_without_a_gateway_gives_the_bytes_of_the_simulator(name):
    requests = some_requests()
    served = serve(requests, BUILT_IN[name], ROOFLINE, 1, Open())
    simulated = simulate(shared(BUILT_IN[name]), requests, CARD, CARD)
    assert served.token_s.tobytes() == simulated.token_s.tobytes()


def test_two_servers_share_the_work_and_finish_everything_once():
    requests = some_requests(qps=12.0)
    run = serve(requests, BUILT_IN["niyama"], ROOFLINE, 2, Open())
    assert set(run.replica) == {0, 1} and abs(int((run.replica == 0).sum()) - 100) < 25
    assert (run.token_s > 0).all()
    for tokens, arrival_s in zip(np.split(run.token_s, run.token_start[1:-1]), requests.arrival_s, strict=True):
        assert tokens[0] > arrival_s and (np.diff(tokens) > 0).all()


class Watched(Aimd):
    """Notes how many batch requests are in flight beside the limit."""

    def released(self):
        found = super().released()
        self.seen = [*getattr(self, "seen", []), (self._in_flight, int(self.limit))]
        return found


CLASSES = (QoSClass("chat", ttft_s=1.0, tbt_s=0.05), QoSClass("job", ttlt_s=600.0))


def test_the_gateway_admits_no_more_than_its_limit_and_lowers_it_under_load():
    requests = some_requests(400, qps=40.0, classes=CLASSES)
    gate = Watched(requests, ttft_s=0.2, tbt_s=0.05, period_s=0.5, limit=8.0)
    run = serve(requests, BUILT_IN["sarathi-fcfs"], ROOFLINE, 1, gate)
    limits = [limit for _, limit in gate.seen]
    assert min(limits) < 8 and len(set(limits)) > 3
    # a limit that falls takes nothing back: more may be in flight than it, but none is let in above it
    for (before, _), (after, limit) in zip(gate.seen, gate.seen[1:], strict=False):
        assert after <= max(limit, before)
    assert (run.token_s > 0).all()


def test_the_limit_is_halved_when_an_slo_is_exceeded_and_grows_else():
    requests = replace(some_requests(4, classes=CLASSES), class_index=np.zeros(4, np.int16), arrival_s=np.zeros(4))
    gate = Aimd(requests, ttft_s=1.0, tbt_s=0.05, period_s=1.0, limit=16.0)
    gate.note(0.9, np.array([0]), ())  # TTFT 0.9 s: in time
    assert gate.limit == 20.0
    gate.note(2.0, np.array([1]), ())  # 2 s: late
    assert gate.limit == 10.0
    gate.note(3.1, np.array([1]), ())  # a gap of 1.1 s
    assert gate.limit == 5.0
    gate.note(3.12, np.array([1]), ())  # within the period: nothing is decided
    gate.note(4.2, np.array([], int), ())  # a gap of 20 ms
    assert gate.limit == 9.0


def test_what_arrives_is_what_the_scenario_says():
    requests = arriving(SMALL, 0, alone=False)
    jobs, bursts = requests.class_index > 0, requests.class_index == 0
    assert jobs.sum() == 80 and (requests.arrival_s[jobs] == 0).all()
    assert (requests.prompt_tokens == 512).all() and (requests.output_tokens[bursts] == 128).all()
    assert requests.output_tokens[jobs].max() <= 2048
    phase = (requests.arrival_s[bursts] // SMALL.dwell_s).astype(int)
    assert phase.max() <= 3 and (phase % 2 == 0).mean() > 0.75  # high first
    assert (arriving(SMALL, 0, alone=True).class_index == 0).all()
    long = arriving(SMALL.model_copy(update={"job_requests": 4000}), 0, alone=False)
    mean = long.output_tokens[long.class_index > 0].mean()
    assert 450 < mean < 500  # of 500; what is cut at 2,048 is missing


def test_a_row_has_the_numbers_of_its_run():
    scenario = SMALL.model_copy(update={"systems": (ALONE, AIMD, "niyama", "vllm-priority")})
    alone, aimd, niyama, priority = operators(scenario, ROOFLINE)
    assert alone["windows_met"] is None and alone["jobs_done_s"] is None
    assert {row["requests"] for row in (aimd, niyama, priority)} == {alone["requests"] + 80}
    requests = arriving(scenario, 0, alone=False)
    run = serve(requests, policy_of("niyama", classes_of(scenario), ROOFLINE), ROOFLINE, 1, Open())
    assert measured(scenario, requests, run, 1) == {name: niyama[name] for name in measured(scenario, requests, run, 1)}
    ends = run.token_s[run.token_start[1:] - 1]
    assert niyama["jobs_done_s"] == ends[requests.class_index > 0].max()
    assert niyama["windows_met"] == sum(ends[requests.class_index == 1 + i].max() <= w for i, w in enumerate((60, 600)))
    assert niyama["gpu_hours"] == pytest.approx(max(24.0, ends.max()) / 3600)


def test_a_system_of_several_pools_is_refused():
    with pytest.raises(ConfigError, match="'sarathi-silo' has 3 pools"):
        policy_of("sarathi-silo", classes_of(SMALL), ROOFLINE)
