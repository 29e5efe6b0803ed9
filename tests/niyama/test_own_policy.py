"""A researcher's policy: one decorated function, through the same compiled kernel."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import config
from plain import ROOFLINE

from niyama import PAPER_CLASSES, Policy, load_policy
from niyama.rules import rank_rule
from niyama.sim import Requests, shared, simulate
from niyama.sim.replica import advance

REQUESTS = Requests(
    PAPER_CLASSES,
    np.array([2, 1, 0, 0]),
    np.zeros(4),
    np.array([3000, 2600, 2700, 2500]),
    np.ones(4, int),
    np.ones(4, bool),
)


def test_a_new_policy_runs_without_compiling_the_kernel_again():
    """Last arrived first: a rank in three lines, a policy in one, no edit to any loop."""
    simulate(shared(load_policy("niyama")), REQUESTS, ROOFLINE, ROOFLINE)
    before = None if config.DISABLE_JIT else len(advance.signatures)

    @rank_rule
    def longest_prompt_first(job, alpha):
        return -float(job.prompt_tokens)

    policy = Policy("longest-prompt-first", rank=longest_prompt_first)
    run = simulate(shared(policy), REQUESTS, ROOFLINE, ROOFLINE)
    assert list(np.argsort(run.token_s)) == [0, 2, 1, 3]
    assert before is None or len(advance.signatures) == before


@pytest.mark.parametrize("disabled", ["0", "1"])
def test_a_rule_may_be_typed_at_a_prompt(disabled):
    """A function without a file cannot be cached; it is compiled for the session."""
    lines = (
        "from niyama.rules import rank_rule\n@rank_rule\ndef mine(job, alpha):\n    return job.arrival_s\nprint('ok')"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
    done = subprocess.run([sys.executable, "-"], input=lines, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


def test_a_policy_in_a_file_is_loaded_from_the_cache_by_a_process_that_stands_elsewhere(tmp_path):
    """The second process finds the compiled rule, and must find its module too."""
    elsewhere, file = tmp_path / "elsewhere", tmp_path / "mine.py"
    elsewhere.mkdir()
    file.write_text(
        "from niyama import Policy\nfrom niyama.rules import rank_rule\n\n"
        "@rank_rule\ndef mine_first(job, alpha):\n    return -float(job.prefill_left)\n\n"
        "mine = Policy('mine', rank=mine_first)\n"
    )
    script = f"from niyama import load_policy; print(load_policy({f'{file}:mine'!r}).name)"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], cwd=elsewhere, capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("mine\n", 0), done.stderr


def test_a_policy_file_that_fails_leaves_no_module_behind(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_policy(f"{tmp_path / 'broken.py'}:mine")
    assert not [name for name in sys.modules if name.startswith("broken_")]
