"""A log longer than one slice of the simulator's buffer loses nothing and changes nothing."""

import numpy as np

from artifact.runs.run import run
from artifact.runs.spec import RunSpec
from niyama.sim.set_up import LOG_ROWS


def test_a_log_of_several_slices_is_whole_and_leaves_the_run_as_it_is():
    spec = RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=2.0, requests=10_000)
    plain, logged = run(spec).run, run(spec, log=True).run
    assert logged.iterations > LOG_ROWS and len(logged.log) == logged.iterations == plain.iterations
    assert np.array_equal(plain.token_s, logged.token_s)
    start_s, duration_s = logged.log[:, 1], logged.log[:, 2]
    assert (start_s[1:] >= start_s[:-1] + duration_s[:-1] - 1e-9).all()  # in order, none twice
