"""What the documents promise to somebody who writes a policy: tenants and left-out decodes, each in a few lines."""

from dataclasses import replace

import numpy as np
import pytest

from niyama import BUILT_IN, QoSClass, load_policy
from niyama.sim import Requests, shared, simulate
from tests.helpers.reference_formulas import ROOFLINE
from tests.helpers.workloads import COLUMN, tokens_of

FAIR = """
from niyama import Policy
from niyama.rules import rank_rule


@rank_rule
def least_served_tenant(job, alpha):
    return job.tenant_virtual + 1e-6 * job.arrival_s


mine = Policy("mine", rank=least_served_tenant, rerank_s=0.001)
"""
PAUSING = """
from niyama import Policy
from niyama.rules import due_rule


@due_rule
def batch_waits_for_prompts(decode, step):
    in_time = decode.slack_s > 4 * step.step_s
    return decode.interactive or step.queued_prefill_tokens == 0 or not in_time


mine = Policy("mine", due=batch_waits_for_prompts)
"""
CLASSES = (QoSClass("chat", ttft_s=6.0, tbt_s=0.05), QoSClass("job", ttlt_s=600.0))


@pytest.fixture
def policy(request, tmp_path):
    (tmp_path / "mine.py").write_text(request.param)
    assert len(request.param.split("\n\n\n")) == 3 and len(request.param.strip().splitlines()) <= 20
    return load_policy(f"{tmp_path / 'mine.py'}:mine")


@pytest.mark.parametrize("policy", [FAIR], indirect=True)
def test_a_policy_with_tenants(policy):
    """Tenant 0 sends 40 prompts at once and tenant 1 one just after: it need not wait for them."""
    n = 41
    requests = Requests(
        CLASSES, np.zeros(n, int), np.append(np.zeros(n - 1), 0.01), np.full(n, 2000), np.full(n, 2), np.ones(n, bool)
    )
    told_apart = replace(requests, tenant=np.append(np.zeros(n - 1, int), 1))
    last_s = [simulate(shared(policy), r, ROOFLINE, ROOFLINE).token_s[-2] for r in (requests, told_apart)]
    assert last_s[1] < 1.0 < 3.0 < last_s[0]


@pytest.mark.parametrize("policy", [PAUSING], indirect=True)
def test_a_policy_that_skips_decodes(policy):
    """Four jobs decode when a long prompt comes: its steps are without them, and they go on after it."""
    outputs = np.array([400] * 4 + [2])
    requests = Requests(
        CLASSES, np.array([1] * 4 + [0]), np.array([0.0] * 4 + [1.0]), np.array([100] * 4 + [9000]), outputs,
        np.ones(5, bool),
    )  # fmt: skip
    beside = {}
    for each in (policy, BUILT_IN["niyama"]):
        run = simulate(shared(each), requests, ROOFLINE, ROOFLINE, log=True)
        prefill, decodes = run.log[:, COLUMN["prefill_tokens"]], run.log[:, COLUMN["decodes"]]
        late = run.log[:, COLUMN["start_s"]] >= 1.0
        beside[each.name] = decodes[late & (prefill > 0)].sum(), tokens_of(run, 4)[0]
        assert np.all(run.token_s > 0.0)
    assert beside["mine"][0] == 0 < beside["niyama"][0]
    assert beside["mine"][1] < beside["niyama"][1]
