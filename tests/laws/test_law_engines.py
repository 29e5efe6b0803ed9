"""One scheduler, several engines: an engine in Python gives the compiled simulator's bytes, and its log replays."""

import pytest
from hypothesis import given, settings

from niyama.decision_log import replay
from niyama.sim import shared, simulate, simulate_logged
from tests.helpers.workloads import POLICIES, assert_same_run, cases

every_policy = pytest.mark.parametrize("name", POLICIES)
MODES = {"in turn": {}, "in vLLM's order": {"started_first": True}, "overlapped": {"overlapped": True}}
every_mode = pytest.mark.parametrize("mode", MODES)


@every_mode
@every_policy
@settings(max_examples=12)
@given(case=cases(most=40))
def test_an_engine_in_python_gives_what_the_compiled_simulator_gives(name, mode, case, tmp_path_factory):
    policy, path = case.policy(name), tmp_path_factory.mktemp("logs") / "decisions.jsonl"
    run = (shared(policy), case.requests, case.executor, case.predictor)
    options = {"noise": case.noise, "seed": case.seed, "log": True, **MODES[mode]}
    options |= {"correct": case.seed % 2 == 1, "delivery_s": case.seed // 2 * 0.02}
    assert_same_run(simulate(*run, **options), simulate_logged(*run, path, **options))
    found = replay(path, policy)
    assert (found.divergence, found.cut_short) == (None, None)
    assert found.steps > 0
