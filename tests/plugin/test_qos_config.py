"""The operator's file: what it means, and that every mistake in it is a line that names field, value and fix."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from niyama import PAPER_CLASSES, load_card, load_policy
from niyama.vllm.__main__ import main as check
from niyama.vllm.config import ConfigError, EngineConfig, load_config

EXAMPLE = Path(__file__).parents[2] / "workflows" / "config" / "engine.yaml"
INTERACTIVE = {"name": "chat", "ttft_s": 2, "tbt_s": 0.1}
BATCH = {"name": "night", "ttlt_s": 3600}
KEY = "0" * 64


def inline(**fields):
    """The configuration with these fields, given inline."""
    return load_config({"niyama": fields}, {})


def test_without_a_file_it_is_the_papers_classes_and_policy():
    config = load_config({}, {})
    assert tuple(c.qos() for c in config.classes) == PAPER_CLASSES
    assert config.build_policy() == load_policy("niyama")
    assert config.build_card() == load_card("a100-llama3-8b-linear")
    assert (config.default_class, config.strict, config.decision_log) == ("Q2", True, None)
    assert all(c.important for c in config.classes)


def test_the_example_file_says_the_defaults_and_its_commented_part_is_valid_too(tmp_path):
    assert load_config({"niyama": str(EXAMPLE)}, {}) == EngineConfig()
    lines = EXAMPLE.read_text().splitlines()
    first = lines.index("# identities:")
    last = next(i for i, line in enumerate(lines) if line.startswith("# anonymous:"))
    lines[first : last + 1] = [line.removeprefix("# ") for line in lines[first : last + 1]]
    whole = tmp_path / "whole.yaml"
    text = "\n".join(lines).replace("64 hex digits", KEY).replace("64 other hex digits", "1" * 64)
    whole.write_text(text)
    config = load_config({"niyama": str(whole)}, {})
    assert config.identities[0].classes == ("Q1", "Q2", "Q3")
    assert len(config.identities[0].all_keys) == 2
    assert config.anonymous == ("Q2", "Q3")


def test_the_engines_own_config_wins_over_the_environment(tmp_path):
    path = tmp_path / "niyama.json"
    path.write_text(json.dumps({"strict": False}))
    environ = {"NIYAMA_CONFIG": str(path)}
    assert load_config(None, environ).strict is False
    assert load_config({"emulated": {}}, environ).strict is False
    assert load_config({"niyama": {"strict": True}}, environ).strict is True


def test_a_policys_numbers_can_be_changed_and_keep_their_types():
    policy = inline(policy={"name": "niyama-adaptive", "alpha_high": 1, "max_chunk_tokens": 512}).build_policy()
    assert (policy.alpha_high, policy.max_chunk_tokens) == (1.0, 512)
    assert policy.alpha_low == load_policy("niyama-adaptive").alpha_low


def test_a_policy_of_ones_own_is_named_by_file(tmp_path):
    (tmp_path / "mine.py").write_text("from niyama import Policy\nmine = Policy('mine', margin=1.5)\nnone = 3\n")
    assert load_config({"niyama": {"policy": f"{tmp_path}/mine.py:mine"}}, {}).build_policy().margin == 1.5
    changed = {"name": f"{tmp_path}/mine.py:mine", "max_chunk_tokens": 300}
    assert load_config({"niyama": {"policy": changed}}, {}).build_policy().max_chunk_tokens == 300
    for name, word in (("gone.py:mine", "no file"), ("mine.py:gone", "defines no 'gone'"), ("mine.py:none", "is 3")):
        with pytest.raises(ValueError, match=word):
            load_config({"niyama": {"policy": f"{tmp_path}/{name}"}}, {})


def test_a_policys_file_is_looked_for_beside_the_configuration(tmp_path):
    (tmp_path / "mine.py").write_text("from niyama import Policy\nmine = Policy('mine', margin=1.5)\n")
    for policy in ("mine.py:mine", {"name": "mine.py:mine", "max_running": 7}, f"{tmp_path}/mine.py:mine"):
        path = tmp_path / "niyama.json"
        path.write_text(json.dumps({"policy": policy}))
        assert load_config({"niyama": str(path)}, {}).build_policy().margin == 1.5


def test_a_configuration_is_checked_without_a_server(tmp_path, capsys):
    path = tmp_path / "niyama.yaml"
    path.write_text("classes: [{name: chat, ttft_s: 2, tbt_s: 0.1}]\ndefault_class: chat\nservice_tiers: {}\n")
    assert check(["check", str(path)]) == 0
    assert "chat: TTFT 2 s, TBT 0.1 s, the default class" in capsys.readouterr().out
    path.write_text("polcy: niyama\nclasses: [{name: chat, ttft_s: 2000, tbt_s: 50}]\n")
    assert check(["check", str(path)]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2 and all(line.startswith(f"error: {path}: ") for line in lines)
    assert "did you mean 'policy'?" in err and "ttft_s is 2000 seconds" in err


def test_a_cards_path_is_relative_to_the_file_that_names_it(tmp_path):
    card = asdict(load_card("a100-llama3-8b-roofline")) | {"name": "mine", "kv_tokens": 1000}
    (tmp_path / "mine.json").write_text(json.dumps(card))
    (tmp_path / "niyama.yaml").write_text("latency: mine.json\n")
    config = load_config(None, {"NIYAMA_CONFIG": str(tmp_path / "niyama.yaml")})
    assert (config.build_card().name, config.build_card().kv_tokens) == ("mine", 1000)


def test_it_is_frozen():
    with pytest.raises(ValidationError):
        EngineConfig().strict = False


def test_a_range_says_how_far_a_request_may_go_and_without_one_it_may_only_relax():
    vip = {**INTERACTIVE, "name": "vip", "ttft_s_range": [1, 60]}
    loose, tight = inline(classes=[INTERACTIVE, vip], default_class="chat", service_tiers={}).classes
    assert loose.bounds_s("ttft_s")[0] == 2
    assert tight.bounds_s("ttft_s") == (1, 60)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"polcy": "niyama"}, ("polcy is not a known field", "did you mean 'policy'?")),
        ({"whatever_this_is": 1}, ("whatever_this_is is not a known field", "remove it")),
        ({"policy": "niyma"}, ("'niyma' is unknown", "did you mean 'niyama'?")),
        ({"policy": 3}, ("policy is 3", "built-in name")),
        ({"policy": {"alpha_low": 1}}, ("policy is {'alpha_low': 1}", "name")),
        ({"policy": {"name": "niyama", "alpha_lo": 1}}, ("'alpha_lo'", "did you mean 'alpha_low'?")),
        ({"policy": {"name": "niyama", "rank": "x"}}, ("policy number 'rank' is unknown",)),
        ({"policy": {"name": "niyama", "margin": "2"}}, ("margin is '2'", "a number")),
        ({"policy": {"name": "niyama", "margin": True}}, ("margin is True", "a number")),
        ({"policy": {"name": "niyama", "max_running": 1.5}}, ("max_running is 1.5", "an integer")),
        ({"policy": {"name": "niyama", "make_room": 1}}, ("make_room is 1", "true or false")),
        ({"policy": {"name": "niyama", "margin": 0.5}}, ("margin is 0.5", "at least 1")),
        ({"policy": {"name": "niyama", "alpha_high": 8}}, ("alpha_high is 8", "for milliseconds write 0.008")),
        ({"policy": {"name": "niyama", "estimator": "oracle"}}, ("estimator is 'oracle'", "use 'history'")),
        ({"latency": "a100"}, ("'a100' is unknown", "`python -m artifact cards`")),
        ({"latency": "no-such.json"}, ("'no-such.json'", "cannot be read", "correct the path")),
        ({"correct_predictor": "yes"}, ("correct_predictor is 'yes'", "boolean")),
        ({"classes": []}, ("classes has 0 entries", "1 to 32")),
        ({"classes": [INTERACTIVE] * 33}, ("classes has 33 entries", "1 to 32")),
        ({"classes": "Q1"}, ("classes is 'Q1'",)),
        ({"classes": [{"ttlt_s": 1}]}, ("classes.0.name is missing", "set it")),
        ({"classes": [{"name": "a b", "ttlt_s": 1}]}, ("classes.0.name is 'a b'", "pattern")),
        ({"classes": [{"name": "a\n", "ttlt_s": 1}]}, ("classes.0.name is 'a\\n'", "pattern")),
        ({"classes": [{"name": "a"}]}, ("'a'", "ttft_s and tbt_s", "ttlt_s alone")),
        ({"classes": [{**BATCH, "ttft_s": 1}]}, ("'night'", "ttlt_s alone")),
        ({"classes": [{**INTERACTIVE, "ttft_s": 6000}]}, ("'chat'", "ttft_s is 6000 seconds", "write ttft_s: 6,")),
        ({"classes": [{**INTERACTIVE, "tbt_s": 50}]}, ("'chat'", "tbt_s is 50 seconds", "write tbt_s: 0.05")),
        (
            {"classes": [{**INTERACTIVE, "ttft_s": 100_000}]},
            ("ttft_s is 100000 seconds", "write ttft_s: 100,"),
        ),
        ({"classes": [{**INTERACTIVE, "tbt_s": 90_000}]}, ("tbt_s is 90000 seconds", "write tbt_s: 90,", "86400")),
        ({"classes": [{**BATCH, "ttlt_s": 600_000}]}, ("'night'", "ttlt_s is 600000 seconds", "write ttlt_s: 600,")),
        ({"delivery_s": 10}, ("delivery_s is 10;", "less than or equal to 1")),
        ({"classes": [{**BATCH, "ttlt_s": "1"}]}, ("classes.0.ttlt_s is '1'", "number")),
        ({"classes": [{**BATCH, "ttlt_s": True}]}, ("classes.0.ttlt_s is True", "number")),
        ({"classes": [{**BATCH, "ttlt_s": float("nan")}]}, ("classes.0.ttlt_s is nan", "finite")),
        ({"classes": [{**BATCH, "ttlt_s": 0}]}, ("classes.0.ttlt_s is 0", "0.001")),
        ({"classes": [{**BATCH, "ttlt_s": 1e9}]}, ("classes.0.ttlt_s is 1000000000.0", "604800")),
        ({"classes": [{**BATCH, "ttlt_s_range": [1, 2]}]}, ("ttlt_s_range is [1, 2]", "around ttlt_s", "3600")),
        ({"classes": [{**BATCH, "ttlt_s_range": [7200, 1]}]}, ("ttlt_s_range is [7200, 1]", "[low, high]")),
        ({"classes": [{**BATCH, "ttlt_s_range": [1]}]}, ("ttlt_s_range",)),
        ({"classes": [{**BATCH, "tbt_s_range": [1, 2]}]}, ("tbt_s_range is set and tbt_s is not", "both or neither")),
        ({"classes": [{**BATCH, "importance": "highest"}]}, ("importance is 'highest'", "'high' or 'low'")),
        ({"classes": [{**BATCH, "name": "Q2"}] * 2, "service_tiers": {}}, ("'Q2' twice",)),
        ({"default_class": "Q9"}, ("default_class is 'Q9'", "use one of Q1, Q2, Q3")),
        ({"classes": [{**BATCH, "name": "Q2"}]}, ("service_tiers.priority is 'Q1'", "use one of Q2")),
        ({"service_tiers": {"flex": "Q9"}}, ("service_tiers.flex is 'Q9'", "use one of")),
        ({"identities": [{"name": "a", "key_sha256": KEY, "classes": ["Q9"]}]}, ("identity 'a'", "'Q9'", "use one of")),
        ({"identities": [{"name": "a", "key_sha256": KEY, "classes": []}]}, ("identity 'a'", "empty", "at least one")),
        ({"identities": [{"name": n, "key_sha256": KEY, "classes": ["Q1"]} for n in "ab"]}, ("'b'", "key_sha256")),
        ({"identities": [{"name": "a", "key_sha256": c * 64, "classes": ["Q1"]} for c in "ab"]}, ("'a' twice",)),
        ({"anonymous": ["Q1"]}, ("anonymous is set and identities is empty",)),
        ({"client_priority": "drop"}, ("client_priority is 'drop'", "'strip' or 'keep'")),
        ({"max_body_bytes": 10}, ("max_body_bytes is 10", "1024")),
        ({"app_histories": 0}, ("app_histories is 0",)),
        ({"decision_log": ""}, ("decision_log is ''",)),
    ],
)
def test_a_mistake_is_one_line_with_field_value_and_fix(fields, words):
    with pytest.raises(ConfigError) as refusal:
        inline(**fields)
    text = str(refusal.value)
    for word in words:
        assert word in text
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize(
    "slos",
    [
        {"ttlt_s": 60_000},
        *({"ttlt_s": days * 86_400} for days in (1, 2, 7)),
        {"ttft_s": 600, "tbt_s": 5},
        {"ttft_s": 86_400, "tbt_s": 86_400.0},
    ],
)
def test_long_slos_that_people_mean_are_no_milliseconds(slos):
    assert inline(classes=[{"name": "a", **slos}], default_class="a", service_tiers={}).classes[0].name == "a"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "is '.', which is a folder; name a file in it"),
        ("/proc/x", "is '/proc/x', which cannot be written (No such file or directory); name a file in a folder"),
        ("x" * 300, "which cannot be written (File name too long)"),
        ("/no-such/x", "there is no folder '/no-such'; make it"),
    ],
)
def test_a_decision_log_that_the_engine_could_not_make_is_refused(name, words, tmp_path, capsys):
    path = tmp_path / "niyama.json"
    path.write_text(json.dumps({"decision_log": name}))
    assert check(["check", str(path)]) == 2
    assert words in capsys.readouterr().err


def test_a_check_neither_makes_nor_empties_the_decision_log(tmp_path):
    log = tmp_path / "log.jsonl"
    inline(decision_log=str(log))
    assert not list(tmp_path.iterdir())
    log.write_text("kept")
    inline(decision_log=str(log))
    assert log.read_text() == "kept"


def test_every_mistake_gets_its_line():
    with pytest.raises(ConfigError) as refusal:
        inline(strict=3, polcy=1, classes=[{**BATCH, "ttlt_s": "x"}])
    lines = str(refusal.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("additional_config niyama: ") for line in lines)


@pytest.mark.parametrize(
    ("identities", "words"),
    [
        ([{"name": "a", "key_sha256": "sk-secret", "classes": ["Q1"]}], "identities.0.key_sha256 is hidden;"),
        ([{"name": "a", "key_sha256": ["sk-secret"], "classes": ["Q1"]}], "identities.0.key_sha256 is hidden;"),
        ([{"name": "a", "key_sha256": KEY, "classes": "sk-secret"}], "identities.0.classes is hidden;"),
        (["sk-secret"], "identities.0 is hidden;"),
        ("sk-secret", "identities is hidden;"),
        ({"sk-secret": "a"}, "identities is hidden;"),
        ([{"name": "a", "key_sha256": KEY, "classes": ["Q1"], "sk-secret": 1}], "identities.0 has a field whose name"),
        ([{"name": "a", "key_sha": "sk-secret", "classes": ["Q1"]}], "did you mean 'key_sha256'?"),
    ],
)
def test_a_key_put_where_its_hash_belongs_reaches_no_log(identities, words):
    with pytest.raises(ConfigError) as refusal:
        inline(identities=identities)
    assert words in str(refusal.value)
    assert "sk-secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strict: [", ("is not valid YAML",)),
        ("strict: true\nstrict: false", ("'strict' is given twice",)),
        ("- 1", ("is [1]", "mapping")),
        ("!!python/object/apply:os.getcwd []", ("is not valid YAML",)),
        ("classes: [{name: Q2, ttlt_s: 6e2}]", ("ttlt_s is '6e2'", "number")),
        ("\x00", ("is not valid YAML",)),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(None, {"NIYAMA_CONFIG": str(path)})
    for word in (str(path), *words):
        assert word in str(refusal.value)


def test_a_file_that_is_not_there_is_named_with_where_its_name_came_from(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=r"NIYAMA_CONFIG is '.*none\.yaml', which cannot be read"):
        load_config(None, {"NIYAMA_CONFIG": str(path)})
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(None, {"NIYAMA_CONFIG": str(path)})


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert load_config(None, {"NIYAMA_CONFIG": str(path)}) == EngineConfig()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra": 1}, ("extra", "exactly the fields")),
        ({"kv_tokens": True}, ("kv_tokens is True", "integer >= 1")),
        ({"kv_tokens": 0}, ("kv_tokens is 0",)),
        ({"name": 7}, ("name is 7", "a string")),
        ({"coefficients": "1"}, ("coefficients is '1'", "list of numbers")),
        ({"coefficients": [1.0, True]}, ("list of numbers",)),
        ({"coefficients": [10**400] * 5}, ("beyond what a float holds",)),
        ({"coefficients": [1.0]}, ("5 finite numbers",)),
        ({"kind": "oracle"}, ("kind is 'oracle'",)),
    ],
)
def test_a_card_file_that_is_no_card_is_refused(tmp_path, changes, words):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(asdict(load_card("a100-llama3-8b-roofline")) | changes))
    with pytest.raises(ValueError) as refusal:
        load_card(str(path))
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_card_file_that_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"card\.json"):
        load_card(str(path))
