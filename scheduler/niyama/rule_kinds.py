"""The four kinds of rules: what each is given and what it answers, as types of compiled code and as decorators."""

from __future__ import annotations

import numpy as np
from numba import types

from niyama.inputs import (
    DECODE_TYPE,
    FORECAST_TYPE,
    JOB_TYPE,
    LIMITS_TYPE,
    STEP_TYPE,
    Decode,
    Forecast,
    Job,
    Limits,
    Step,
)
from niyama.latency.model import BATCH_TYPE, MODEL_TYPE, Batch, LatencyModel
from niyama.own_rules import RuleKind, rule_decorator

_F, _I = types.float64, types.int64

_RANK = _F(JOB_TYPE, _F)  # (job, alpha) -> key, lower first; finite
# (model, batch so far, limits, prefix of the next chunk, least slack in s) -> prefill tokens to add
_BUDGET = _I(MODEL_TYPE, BATCH_TYPE, LIMITS_TYPE, _I, _F)
_DOOMED = types.int8(FORECAST_TYPE)  # (forecast) -> whether to relegate: 0 or 1, -1 where the rule raised
_DUE = types.int8(DECODE_TYPE, STEP_TYPE)  # (decode, step) -> whether it gets its next token, likewise

# Decorators for rules, a user's own too. A number that no rule answers says that it raised.
rank_rule = rule_decorator(RuleKind("rank", _RANK, {"job": Job, "alpha": None}, "float(value)", np.nan))
budget_rule = rule_decorator(
    RuleKind(
        "prefill_budget",
        _BUDGET,
        {"model": LatencyModel, "batch": Batch, "limits": Limits, "prefix": None, "slack_s": None},
        "int(value) if isfinite(value) else fault",
        -(2**63),
    )
)
doomed_rule = rule_decorator(RuleKind("doomed", _DOOMED, {"forecast": Forecast}, "1 if value else 0", -1))
due_rule = rule_decorator(RuleKind("due", _DUE, {"decode": Decode, "step": Step}, "1 if value else 0", -1))
RULE_TYPES = tuple(types.FunctionType(signature) for signature in (_RANK, _BUDGET, _DOOMED, _DUE))
