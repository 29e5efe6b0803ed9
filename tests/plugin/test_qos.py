"""What a request is promised: classes, clamped SLOs, importance that only falls, and faults instead of exceptions."""

import hashlib
from dataclasses import replace

import pytest

from niyama import PAPER_CLASSES
from niyama.vllm.config import EngineConfig, load_config
from niyama.vllm.qos import KEY, MAX_MS, TENANTS, QoSError, parse, serve

PAPER = EngineConfig()
HASH = hashlib.sha256(b"secret").hexdigest()
RANGED = load_config(
    {
        "niyama": {
            "classes": [
                {"name": "chat", "ttft_s": 6, "tbt_s": 0.05, "ttft_s_range": [1, 60], "tbt_s_range": [0.02, 1]},
                {"name": "night", "ttlt_s": 600, "importance": "low"},
            ],
            "default_class": "night",
            "service_tiers": {},
        }
    },
    {},
)
IDENTITIES = load_config(
    {
        "niyama": {
            "identities": [
                {"name": "a", "key_sha256": HASH, "classes": ["Q1", "Q3"]},
                {"name": "b", "key_sha256": "1" * 64, "classes": ["Q3", "Q1", "Q2"]},
            ],
            "anonymous": ["Q3"],
        }
    },
    {},
)


@pytest.mark.parametrize("nothing", [None, {}, {"other": 1}, {"kv_transfer_params": {}}, 7])
def test_who_asks_for_nothing_gets_the_default_class(nothing):
    served = serve(PAPER, nothing)
    assert (served.class_name, served.class_index, served.fault) == ("Q2", 1, None)
    assert (served.interactive, served.deadline_slo_s, served.tbt_s) == (False, 600.0, 0.0)
    assert served.important
    assert served.app == 1


@pytest.mark.parametrize("qos", PAPER_CLASSES)
def test_a_class_by_name_is_the_papers(qos):
    served = serve(PAPER, {"niyama_class": qos.name})
    assert (served.class_name, served.fault) == (qos.name, None)
    assert (served.interactive, served.deadline_slo_s) == (qos.interactive, qos.deadline_slo_s)
    assert served.tbt_s == (qos.tbt_s or 0.0)
    assert PAPER.classes[served.class_index].name == qos.name


@pytest.mark.parametrize(
    ("asked_ms", "given_s"), [(6_000, 6.0), (6_001, 6.001), (1, 6.0), (5_999, 6.0), (MAX_MS, MAX_MS / 1000)]
)
def test_without_a_range_a_request_may_relax_its_slo_and_never_tighten_it(asked_ms, given_s):
    served = serve(PAPER, {"niyama_class": "Q1", "niyama_ttft_ms": asked_ms})
    assert (served.deadline_slo_s, served.tbt_s, served.fault) == (given_s, 0.05, None)


@pytest.mark.parametrize(("asked_ms", "given_s"), [(500, 1.0), (1_000, 1.0), (2_500, 2.5), (60_001, 60.0)])
def test_a_range_clamps_at_both_ends(asked_ms, given_s):
    assert serve(RANGED, {"niyama_class": "chat", "niyama_ttft_ms": asked_ms}).deadline_slo_s == given_s


@pytest.mark.parametrize(
    ("asked", "clamped"),
    [
        ({}, False),
        ({"niyama_ttft_ms": 6000, "niyama_tbt_ms": 30}, False),
        *(({"niyama_ttft_ms": ms}, ms in (999, 60_001)) for ms in (999, 1000, 1001, 59_999, 60_000, 60_001)),
        ({"niyama_ttft_ms": 2000, "niyama_tbt_ms": 19}, True),
    ],
)
def test_what_is_beyond_the_range_is_said_to_be_clamped(asked, clamped):
    assert serve(RANGED, {"niyama_class": "chat", **asked}).clamped == clamped


def test_every_slo_of_a_class_can_be_asked_for():
    served = serve(RANGED, {"niyama_class": "chat", "niyama_ttft_ms": 2000, "niyama_tbt_ms": 30})
    assert (served.deadline_slo_s, served.tbt_s) == (2.0, 0.03)
    assert serve(RANGED, {"niyama_ttlt_ms": 700_000}).deadline_slo_s == 700.0


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"niyama_class": "Q9"}, "niyama_class", ("'Q9'", "Q2, Q1, Q3")),
        ({"niyama_class": "q1"}, "niyama_class", ("'q1'",)),
        ({"niyama_class": ["Q1"]}, "niyama_class", ("a list",)),
        ({"niyama_class": None}, "niyama_class", ("None",)),
        ({"niyama_ttlt_ms": "600"}, "niyama_ttlt_ms", ("'600'", "integer of milliseconds")),
        ({"niyama_ttlt_ms": 600.0}, "niyama_ttlt_ms", ("600.0", "integer")),
        ({"niyama_ttlt_ms": float("nan")}, "niyama_ttlt_ms", ("nan", "integer")),
        ({"niyama_ttlt_ms": float("inf")}, "niyama_ttlt_ms", ("inf", "integer")),
        ({"niyama_ttlt_ms": True}, "niyama_ttlt_ms", ("True", "integer")),
        ({"niyama_ttlt_ms": 0}, "niyama_ttlt_ms", ("is 0;", "from 1 to 604800000")),
        ({"niyama_ttlt_ms": -5}, "niyama_ttlt_ms", ("-5", "from 1")),
        ({"niyama_ttlt_ms": MAX_MS + 1}, "niyama_ttlt_ms", ("604800001", "to 604800000")),
        ({"niyama_ttlt_ms": 10**400}, "niyama_ttlt_ms", ("a huge integer",)),
        ({"niyama_ttlt_ms": [1]}, "niyama_ttlt_ms", ("a list",)),
        ({"niyama_ttft_ms": 6000}, "niyama_ttft_ms", ("class Q2 is batch", "niyama_ttlt_ms")),
        ({"niyama_tbt_ms": 50}, "niyama_tbt_ms", ("class Q2 is batch",)),
        ({"niyama_class": "Q1", "niyama_ttlt_ms": 9}, "niyama_ttlt_ms", ("class Q1 is interactive", "niyama_ttft_ms")),
        ({"niyama_importance": "medium"}, "niyama_importance", ("'medium'", "'high' or 'low'")),
        ({"niyama_importance": 1}, "niyama_importance", ("is 1",)),
        ({"niyama_app": ""}, "niyama_app", ("''", "1 to 128")),
        ({"niyama_app": "x" * 129}, "niyama_app", ("1 to 128",)),
        ({"niyama_app": 5}, "niyama_app", ("is 5",)),
        ({"niyama_app": "a\ud800"}, "niyama_app", ("lone surrogates",)),
        ({"niyama_deadline": 5}, "unknown", ("'niyama_deadline'", "is not a QoS field", "niyama_class")),
    ],
)
def test_nonsense_is_a_fault_that_names_field_value_and_fix_and_gets_the_default_class(asked, field, words):
    served = serve(PAPER, asked)
    assert served == replace(serve(PAPER, None), fault=served.fault, fault_field=field)
    for word in words:
        assert word in served.fault
    assert len(served.fault) < 300
    with pytest.raises(QoSError) as refusal:
        parse(PAPER, asked)
    assert str(refusal.value) == served.fault
    assert refusal.value.field == field


def test_importance_falls_and_never_rises():
    assert serve(PAPER, {"niyama_importance": "low"}).important is False
    assert serve(PAPER, {"niyama_importance": "high"}).fault is None
    assert serve(RANGED, None).important is False
    raised = serve(RANGED, {"niyama_importance": "high"})
    assert raised.important is False
    assert "class night is of low importance" in raised.fault


def test_apps_share_a_bounded_number_of_histories_and_a_name_keeps_its_own():
    apps = [serve(PAPER, {"niyama_app": f"app-{i}"}).app for i in range(5000)]
    assert min(apps) >= len(PAPER.classes)
    assert max(apps) < PAPER.app_count
    assert len(set(apps)) == PAPER.app_histories
    assert serve(PAPER, {"niyama_app": "agent"}).app == serve(PAPER, {"niyama_app": "agent", "niyama_class": "Q1"}).app
    assert [serve(PAPER, {"niyama_class": c.name}).app for c in PAPER.classes] == [0, 1, 2]


def test_without_identities_a_key_changes_nothing():
    assert serve(PAPER, {"niyama_key_sha256": HASH, "niyama_class": "Q1"}).fault is None


@pytest.mark.parametrize(
    ("key", "default", "granted", "refused"),
    [
        (HASH, "Q1", ("Q1", "Q3"), ("Q2",)),
        ("1" * 64, "Q2", ("Q1", "Q2", "Q3"), ()),
        (None, "Q3", ("Q3",), ("Q1", "Q2")),
        ("secret", "Q3", ("Q3",), ("Q1", "Q2")),
        (HASH.upper(), "Q3", ("Q3",), ("Q1",)),
        (7, "Q3", ("Q3",), ("Q1",)),
        (["x"], "Q3", ("Q3",), ("Q1",)),
        ("\ud800", "Q3", ("Q3",), ("Q1",)),
    ],
)
def test_the_engine_itself_grants_a_key_its_classes_and_no_other(key, default, granted, refused):
    """Whatever endpoint the request came by: the middleware only says it earlier."""
    by_key = {} if key is None else {"niyama_key_sha256": key}
    assert serve(IDENTITIES, by_key).class_name == default
    for name in granted:
        served = serve(IDENTITIES, {**by_key, "niyama_class": name})
        assert (served.class_name, served.fault) == (name, None)
    for name in refused:
        served = serve(IDENTITIES, {**by_key, "niyama_class": name})
        assert (served.class_name, served.fault_field) == (default, "niyama_class")
        assert "this API key may not use" in served.fault
        with pytest.raises(QoSError) as refusal:
            parse(IDENTITIES, {**by_key, "niyama_class": name})
        assert refusal.value.forbidden


def test_each_identity_is_a_tenant_whatever_it_asks_for_and_strangers_are_one():
    """By its name: its place in the configuration may change while the engine runs."""
    of_a, of_b = (serve(IDENTITIES, {KEY: key}).tenant for key in (HASH, "1" * 64))
    assert of_a != of_b and {of_a, of_b} < set(range(1, TENANTS))
    assert serve(IDENTITIES, {KEY: HASH, "niyama_class": "no such class"}).tenant == of_a
    turned = IDENTITIES.model_copy(update={"identities": IDENTITIES.identities[::-1]})
    assert serve(turned, {KEY: HASH}).tenant == of_a
    assert serve(IDENTITIES, None).tenant == serve(IDENTITIES, {KEY: "2" * 64}).tenant == serve(PAPER, None).tenant == 0
