"""A researcher's policy: one decorated function, through the same compiled kernel."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import config

from niyama import PAPER_CLASSES, Policy, load_policy
from niyama.rules import rank_rule
from niyama.sim import Requests, shared, simulate
from niyama.sim.replica import advance
from tests.helpers.reference_formulas import ROOFLINE

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


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
def test_an_edit_of_a_file_that_a_policy_file_imports_counts_at_once(tmp_path):
    """numba's cache looks at the rule's own file alone; so a user's rule is compiled by each process."""
    elsewhere, file, helper = tmp_path / "elsewhere", tmp_path / "mine.py", tmp_path / "helper.py"
    elsewhere.mkdir()
    file.write_text(
        "from helper import KEY\nfrom niyama import Policy\nfrom niyama.rules import rank_rule\n\n"
        "@rank_rule\ndef by_helper(job, alpha):\n    return KEY\n\nmine = Policy('mine', rank=by_helper)\n"
    )
    script = (
        "from niyama import load_policy\nfrom niyama.jit import compiled\nfrom niyama.rules import Job\n"
        f"rule = load_policy({f'{file}:mine'!r}).rank\n"
        "@compiled\ndef key(rule):\n    job = Job(0.0, 0.0, 1, 1, 0.0, True, 0.0, 0.0, 0.0, 1, 1.0, 0, 0.0, 0.0)\n"
        "    return rule(job, 0.0)\n"
        "print(key(rule))\n"
    )
    (tmp_path / "ask.py").write_text(script)
    path = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for answer in ("1.0\n", "2.0\n"):
        helper.write_text(f"KEY = {answer}")
        command = [sys.executable, str(tmp_path / "ask.py")]
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, env=path)
        assert (done.stdout, done.returncode) == (answer, 0), done.stderr


def test_a_policy_file_that_fails_leaves_no_module_behind(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"broken\.py, line 1: ZeroDivisionError"):
        load_policy(f"{tmp_path / 'broken.py'}:mine")
    assert not [name for name in sys.modules if name.startswith("broken_")]
