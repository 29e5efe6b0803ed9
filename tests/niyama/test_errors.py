"""Every refusal names the bad value, the field and what would be right."""

from dataclasses import replace

import numpy as np
import pytest

from niyama import PAPER_CLASSES, Policy, QoSClass, load_card, load_policy
from niyama.requests import fill, new_table
from niyama.rules import budget_rule
from niyama.sim import Pool, Requests, System, shared, simulate
from tests.helpers.reference_formulas import LINEAR, ROOFLINE

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "", "ttlt_s": 1.0}, ("name is empty", "'Q1'")),
        ({"name": "a"}, ("'a'", "set ttft_s and tbt_s", "ttlt_s=None")),
        ({"name": "a", "ttft_s": 1.0}, ("set ttft_s and tbt_s", "ttft_s=1.0")),
        ({"name": "a", "ttft_s": 1.0, "tbt_s": 1.0, "ttlt_s": 1.0}, ("ttlt_s alone", "ttlt_s=1.0")),
        ({"name": "a", "ttlt_s": NAN}, ("'a'", "ttlt_s is nan", "positive finite")),
        ({"name": "a", "ttlt_s": -600.0}, ("ttlt_s is -600.0", "positive finite")),
        ({"name": "a", "ttft_s": 0.0, "tbt_s": 1.0}, ("ttft_s is 0.0", "positive finite")),
        ({"name": "a", "ttft_s": 1.0, "tbt_s": INF}, ("tbt_s is inf", "positive finite")),
    ],
)
def test_a_qos_class_refuses_bad_slos(arguments, words):
    assert_refused(lambda: QoSClass(**arguments), words)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("max_chunk_tokens", 0, "an integer >= 1"),
        ("max_chunk_tokens", 256.0, "an integer >= 1"),
        ("min_chunk_tokens", -128, "an integer >= 1"),
        ("min_chunk_tokens", 2501, "at most max_chunk_tokens"),
        ("max_running", 0, "an integer >= 1"),
        ("max_running", 999_999_999_999, "at most 1000000"),
        ("margin", 1e308, "at most 1e+09"),
        ("kv_low_chunk_tokens", 0, "an integer >= 1"),
        ("kv_low_tokens", -1, "finite and not negative"),
        ("kv_reserve", NAN, "finite and not negative"),
        ("margin", 0.9, "at least 1"),
        ("margin", NAN, "at least 1"),
        ("alpha_low", -0.001, "finite and not negative"),
        ("alpha_high", INF, "finite and not negative"),
        ("alpha_low", 0.009, "at most alpha_high"),
        ("queued_prefill_share", 1.5, "at most 1"),
        ("load_low_s", 7.0, "at most load_high_s"),
        ("alpha_high", 8, "at most 1 seconds; for milliseconds write 0.008"),
        ("load_high_s", 6000, "for milliseconds write 6"),
        ("step_s", 50, "at most 5 seconds; for milliseconds write 0.05"),
        ("load_high_s", NAN, "finite and not negative"),
        ("estimator", "guess", "one of history, constant, quantile, oracle"),
        ("estimator_value", -2.0, "finite and not negative"),
        ("estimator_prior", INF, "finite and not negative"),
    ],
)
def test_a_policy_refuses_senseless_numbers(field, value, wanted):
    assert_refused(lambda: Policy("mine", **{field: value}), ("policy 'mine'", f"{field} is {value!r}", wanted))


def test_a_quantile_is_between_0_and_1():
    words = ("estimator_value is 2.0", "between 0 and 1 for a quantile")
    assert_refused(lambda: Policy("mine", estimator="quantile"), words)


def test_unknown_names_get_a_suggestion_and_the_known_ones():
    assert_refused(lambda: load_policy("nyama"), ("'nyama' is unknown", "did you mean 'niyama'?", "sarathi-edf"))
    assert_refused(lambda: load_policy("zzz"), ("'zzz' is unknown; use one of niyama",))
    words = ("'a100-llama3-8b' is unknown", "did you mean 'a100-llama3-8b-", "`python -m artifact cards`", ".json")
    assert_refused(lambda: load_card("a100-llama3-8b"), words)


@pytest.mark.parametrize(
    ("card", "changes", "words"),
    [
        (ROOFLINE, {"kind": "spline"}, ("kind is 'spline'", "['forest', 'monotone', 'roofline', 'two-bin-linear']")),
        (ROOFLINE, {"coefficients": (1.0, 2.0)}, ("5 finite numbers",)),
        (ROOFLINE, {"coefficients": (1.0, 2.0, NAN, 0.0, 0.0)}, ("finite numbers",)),
        (ROOFLINE, {"coefficients": (0.01, -1e-4, 0.01, 0.0, 0.0)}, ("-0.0001", "none negative", "takes time")),
        (ROOFLINE, {"coefficients": (0.0, 1e-4, 0.0, 0.0, 0.0)}, ("overhead + floor positive",)),
        (LINEAR, {"coefficients": LINEAR.coefficients[:-1]}, ("12 finite numbers",)),
        (LINEAR, {"coefficients": (0.0,) * 12}, ("intercepts and token slopes positive",)),
    ],
)
def test_a_model_card_refuses_what_could_not_be_a_step_time(card, changes, words):
    assert_refused(lambda: replace(card, **changes), (f"'{card.name}'", *words))


def requests(**changes):
    """Three requests, one per class, with columns replaced."""
    columns = {
        "classes": PAPER_CLASSES,
        "class_index": np.arange(3),
        "arrival_s": np.array([0.0, 1.0, 2.0]),
        "prompt_tokens": np.array([10, 20, 30]),
        "output_tokens": np.array([1, 2, 3]),
        "important": np.ones(3, bool),
    }
    return Requests(**{**columns, **changes})


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("prompt_tokens", [10, 0, 30], ("request 1: prompt_tokens is 0", "at least 1")),
        ("output_tokens", [1, 2, -3], ("request 2: output_tokens is -3", "at least 1")),
        ("arrival_s", [0.0, NAN, 2.0], ("request 1: arrival_s is nan", "finite")),
        ("arrival_s", [0.0, 3.0, 2.0], ("request 2: arrival_s is 2.0", "sort the rows")),
        ("prompt_tokens", [10, 20, 1598], ("request 2: prompt_tokens + output_tokens is 1601", "1600", "more KV")),
        ("class_index", [0, 1, 3], ("request 2: class_index is 3", "one of the 3 classes")),
        ("class_index", [0, -1, 2], ("request 1: class_index is -1", "one of the 3 classes")),
        ("app", [0, 5, -2], ("request 2: app is -2", "0 or more")),
        ("important", [True, False], ("important has 2 rows and arrival_s 3",)),
    ],
)
def test_requests_that_cannot_be_served_are_refused(column, values, words):
    """Before anything runs, on a replica of 1,600 tokens of KV (1,610 rounded down to whole blocks)."""
    bad, card = requests(**{column: np.array(values)}), replace(ROOFLINE, kv_tokens=1610)
    assert_refused(lambda: simulate(shared(load_policy("niyama")), bad, card, card), words)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("arrival_s", [0.0, INF], ("request 1: arrival_s is inf", "finite")),
        ("prompt_tokens", [0, 1], ("request 0: prompt_tokens is 0", "at least 1")),
        ("deadline_slo_s", [1.0, NAN], ("request 1: deadline_slo_s is nan", "positive")),
        ("deadline_slo_s", [-1.0, 1.0], ("request 0: deadline_slo_s is -1.0", "positive")),
        ("tbt_s", [0.0, 0.0], ("request 0: tbt_s is 0.0", "positive for an interactive request")),
    ],
)
def test_a_request_table_refuses_bad_columns(column, values, words):
    """Request 0 is interactive, request 1 is not and needs no TBT."""
    columns = {
        "arrival_s": np.zeros(2),
        "prompt_tokens": np.ones(2, int),
        "deadline_slo_s": np.ones(2),
        "tbt_s": np.array([0.05, 0.0]),
        "interactive": np.array([True, False]),
        "important": np.ones(2, bool),
        "app": np.zeros(2, int),
    }
    fill(new_table(2), **columns)
    assert_refused(lambda: fill(new_table(2), **{**columns, column: np.array(values)}), words)


def test_systems_refuse_what_cannot_run():
    niyama = load_policy("niyama")
    assert_refused(lambda: Pool(niyama, 0), ("pool 'niyama'", "replicas is 0", "integer >= 1"))
    assert_refused(lambda: Pool(niyama, 1.5), ("replicas is 1.5", "integer >= 1"))
    assert_refused(lambda: System("s", ()), ("system 's'", "pools is empty", "at least one"))
    assert_refused(lambda: shared(niyama, 1, "random"), ("routing is 'random'", "use round-robin, least-work, packed"))
    silo = System("silo", (Pool(niyama, 1, ("Q1", "Q2")),))
    words = ("system 'silo'", "no pool serves class 'Q3'", "name it")
    assert_refused(lambda: simulate(silo, requests(), ROOFLINE, ROOFLINE), words)


@pytest.mark.parametrize("noise", [-0.1, NAN, INF, 1e308])
def test_noise_is_finite_and_not_negative(noise):
    run = lambda: simulate(shared(load_policy("niyama")), requests(), ROOFLINE, ROOFLINE, noise=noise)  # noqa: E731
    assert_refused(run, (f"noise is {noise}", "finite and not negative"))


@budget_rule
def no_tokens_ever(model, batch, limits, prefix, slack_s):
    return 0


def test_a_policy_that_plans_nothing_is_refused_where_it_stalls():
    """A user's rule that never lets anything run ends in an error, not in an endless simulation."""
    system = shared(Policy("lazy", prefill_budget=no_tokens_ever))
    words = ("policy 'lazy' plans nothing at 0.0 s", "1 requests wait", "at least 1 token")
    assert_refused(lambda: simulate(system, requests(), ROOFLINE, ROOFLINE), words)


def assert_refused(action, words):
    with pytest.raises(ValueError) as refusal:
        action()
    for word in words:
        assert word in str(refusal.value)
