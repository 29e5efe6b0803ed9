"""What the functions of the kernel are given, in place of a dozen arguments.

Their letters: `k` is the Kernel, `s` its state, `t` its table and `p` its params; `m` is the Moment of a plan; `r` is a
request, by its row in the table.
"""

from __future__ import annotations

from typing import NamedTuple

from niyama.inputs import Limits
from niyama.latency import LatencyModel
from niyama.policies import Params, Rules
from niyama.requests import RequestTable
from niyama.state import State


class Kernel(NamedTuple):
    """One scheduler at work. State and table change, the rest does not."""

    state: State
    table: RequestTable
    params: Params
    rules: Rules
    model: LatencyModel  # the predictor


class Moment(NamedTuple):
    """What does not change while one iteration is planned. Times in seconds."""

    now_s: float  # when the iteration starts
    slack_s: float  # least time to a decode's next deadline
    full_step_s: float  # predicted time of an iteration with the decodes and one full chunk
    limits: Limits
