"""A client's API keys: several at once, some with an end."""

import hashlib
import json

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")
pytest.importorskip("httpx", reason="httpx comes with vLLM")

from niyama.vllm.config import ConfigError, load_config
from tests.helpers.asgi_app import configured, knock


def sha256(key):
    return hashlib.sha256(key.encode()).hexdigest()


def key(name, expires=None):
    return {"sha256": sha256(name)} | ({"expires": expires} if expires else {})


PAST, FUTURE = "2020-01-31T00:00:00Z", "2999-01-31T00:00:00+02:00"
TEAM = {
    "name": "team",
    "key_sha256": sha256("sk-old-style"),
    "keys": [key("sk-past", PAST), key("sk-future", FUTURE), key("sk-always")],
    "classes": ["Q1"],
}


def answered(name, **fields):
    headers = {"authorization": f"Bearer {name}"} if name else {}
    return knock({"prompt": "x"}, headers, config=configured(identities=[TEAM], **fields))


@pytest.mark.parametrize("anonymous", [["Q3"], []])
@pytest.mark.parametrize("name", ["sk-old-style", "sk-future", "sk-always"])
def test_every_key_of_a_client_opens_its_classes(name, anonymous):
    assert answered(name, anonymous=anonymous).headers["x-niyama-class"] == "Q1"


@pytest.mark.parametrize("anonymous", [["Q3"], []])
def test_an_expired_key_is_refused_and_told_so_even_where_strangers_are_served(anonymous):
    response = answered("sk-past", anonymous=anonymous)
    assert response.status_code == 401
    assert response.json()["error"]["message"] == "this API key expired at 2020-01-31T00:00:00Z; send a newer one"


def test_other_keys_are_strangers_as_before():
    assert answered("sk-none", anonymous=["Q3"]).headers["x-niyama-class"] == "Q3"
    assert "no valid API key" in answered("sk-none", anonymous=[]).json()["error"]["message"]


@pytest.mark.parametrize("text", [PAST, f'"{PAST}"', "2020-01-31 02:00:00+02:00"])
def test_a_time_is_read_from_yaml_as_a_time_or_as_text(text, tmp_path):
    path = tmp_path / "niyama.yaml"
    path.write_text(f"identities: [{{name: a, keys: [{{sha256: {'a' * 64}, expires: {text}}}], classes: [Q1]}}]")
    (identity,) = load_config({"niyama": str(path)}, {}).identities
    assert identity.keys[0].expires.isoformat() in ("2020-01-31T00:00:00+00:00", "2020-01-31T02:00:00+02:00")


@pytest.mark.parametrize("expires", ["2027-01-31", "2027-01-31T00:00:00", "2027", "sk-secret", "[1]", "true"])
def test_a_time_without_its_zone_and_what_is_none_are_refused(expires, tmp_path):
    path = tmp_path / "niyama.yaml"
    path.write_text(f"identities: [{{name: a, keys: [{{sha256: {'a' * 64}, expires: {expires}}}], classes: [Q1]}}]")
    with pytest.raises(ConfigError, match=r"keys\.0\.expires: is .*; write a time with its zone") as error:
        load_config({"niyama": str(path)}, {})
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("identities", "words"),
    [
        ([{"name": "a", "classes": ["Q1"]}], "identity 'a' has no key; list its keys"),
        ([{"name": "a", "keys": [], "classes": ["Q1"]}], "identity 'a' has no key"),
        ([{"name": "a", "keys": [key("k"), key("k", PAST)], "classes": ["Q1"]}], "listed before"),
        ([TEAM, {"name": "b", "key_sha256": sha256("sk-future"), "classes": ["Q1"]}], "identity 'b': a key"),
        ([{"name": "a", "keys": [{"sha": "sk-secret"}], "classes": ["Q1"]}], "keys.0.sha256 is missing"),
    ],
)
def test_lists_of_keys_that_make_no_sense_are_refused(identities, words):
    with pytest.raises(ConfigError) as error:
        load_config({"niyama": {"identities": identities}}, {})
    assert words in str(error.value) and "sk-secret" not in str(error.value)


def test_hashes_are_not_shown_where_a_configuration_is_printed():
    assert sha256("sk-always") not in repr(configured(identities=[TEAM]))
    assert json.loads(configured(identities=[TEAM]).model_dump_json())["identities"][0]["name"] == "team"
