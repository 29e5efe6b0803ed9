"""Cards' files: coefficients by name and unit, older ones as lists, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from niyama.latency import Batch, load_card, model_names, seconds
from niyama.latency.cards import BASES, FOLDER, NOT_SAID, card_text
from niyama.latency.coefficients import COEFFICIENTS, flat, named
from niyama.latency.curve import LINE
from tests.helpers.reference_formulas import ALL_KINDS, LINEAR, MONOTONE, ROOFLINE

#: SHA-256 of the coefficients of the cards that shipped as lists of numbers, as floats in hexadecimal.
BEFORE = {
    "a100-llama3-8b-engine": "aa7a9f3d3f1c1dda",
    "a100-llama3-8b-kernels": "8fb490c49893508e",
    "a100-llama3-8b-linear": "ed347deb9ba3ce6d",
    "a100-llama3-8b-roofline": "9020cd6d5d172eb9",
    "a100-tp2-qwen-7b-engine": "78a82afba6772847",
    "a100-tp2-qwen-7b-kernels": "c573e94a9941ead8",
    "h100-tp4-llama3-70b-engine": "11625e11bd1bec5b",
    "h100-tp4-llama3-70b-kernels": "b26bde8753f49396",
}
BATCHES = (Batch(0, 0, 512, 512 * 256.0, 0), Batch(64, 64 * 2048, 0, 0.0, 0), Batch(30, 60_000, 700, 1e6, 2048))

every_kind = pytest.mark.parametrize("card", ALL_KINDS, ids=lambda card: card.kind)


def digest(card):
    return hashlib.sha256(" ".join(c.hex() for c in card.coefficients).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", BEFORE)
def test_numbers_of_the_cards_that_had_none_by_name_are_the_same_to_the_last_bit(name):
    assert digest(load_card(name)) == BEFORE[name]


@every_kind
def test_a_file_gives_back_the_card(tmp_path, card):
    path = tmp_path / "card.json"
    path.write_text(card_text(card))
    assert load_card(str(path)) == card


@every_kind
def test_names_are_those_of_the_array(card):
    values = named(card.kind, card.coefficients)
    assert tuple(values) == tuple(one.name for one in COEFFICIENTS[card.kind])
    assert tuple(flat(card.kind, json.loads(json.dumps(values)))) == card.coefficients


def test_each_name_stands_where_the_formula_reads_it():
    """More of one coefficient alone is that much more time, for what its unit says."""
    batch = BATCHES[2]
    total = batch.decodes + batch.prefill_tokens
    amounts = {
        "base": 1, "decode": batch.decodes, "decode_context": batch.decode_context,
        "prefill_work": batch.prefill_work, "top_prefix": batch.top_prefix,
        "overhead": 1, "token": total,
        "intercept_above_512": 1, "token_above_512": total, "prefill_token_above_512": batch.prefill_tokens,
        "decode_above_512": batch.decodes, "decode_context_above_512": batch.decode_context,
        "top_prefix_above_512": batch.top_prefix,
    }  # fmt: skip
    checked = set()
    for card in (LINEAR, ROOFLINE, MONOTONE):
        for at, one in enumerate(COEFFICIENTS[card.kind]):
            if one.name not in amounts or (card.kind == "monotone" and at == LINE):
                continue
            more = list(card.coefficients)
            more[at] += 1e-3
            change_s = seconds(replace(card, coefficients=tuple(more)).build(), batch) - seconds(card.build(), batch)
            assert change_s == pytest.approx(1e-3 * amounts[one.name]), one.name
            checked.add(one.name)
    assert checked == set(amounts)


@pytest.mark.parametrize("basis", [True, False])
@every_kind
def test_an_older_file_is_read_as_it_was(tmp_path, card, basis):
    row = {name: getattr(card, name) for name in ("name", "kind", "hardware", "model", "engine", "kv_tokens", "source")}
    row |= {"error": card.error, "margin": card.error_p95, "coefficients": list(card.coefficients)}
    row |= {"basis": card.basis} if basis else {}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(row))
    found = load_card(str(path))
    assert found.basis == (card.basis if basis else NOT_SAID)
    assert replace(found, basis=card.basis) == card
    for batch in BATCHES:
        assert seconds(found.build(), batch) == seconds(card.build(), batch)


def changed(change):
    row = json.loads(card_text(MONOTONE))
    change(row)
    return row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["coefficients"].pop("base"), ("a monotone card has exactly", "'base'")),
        (lambda r: r["coefficients"].update(overhead={"value": 1.0, "unit": "s"}), ("a monotone card has exactly",)),
        (lambda r: r["coefficients"]["base"].update(unit="ms"), ("base.unit is 'ms'", "convert its value to 's'")),
        (lambda r: r["coefficients"].update(base=0.01), ("coefficients.base is 0.01", "a value and a unit (s)")),
        (lambda r: r["coefficients"]["base"].update(value="0.01"), ("make it numbers by name",)),
        (lambda r: r["coefficients"]["base"].update(value=[0.01]), ("make it numbers by name",)),
        (
            lambda r: r["coefficients"]["bends"].update(value=[[16.0]]),
            ("coefficients.bends.value", "[tokens, s/token]"),
        ),
        (lambda r: r["coefficients"]["bends"].update(value=16), ("coefficients.bends.value",)),
        (lambda r: r["coefficients"]["base"].update(value=-1.0), ("must be positive",)),
        (lambda r: r.update(basis="guessed"), ("basis is 'guessed'", "'measured'")),
        (lambda r: r.update(basis=3), ("basis is 3", "a string")),
        (lambda r: r.update(kind="spline"), ("kind is 'spline'",)),
    ],
)
def test_what_a_file_may_not_say(tmp_path, change, words):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(changed(change)))
    with pytest.raises(ValueError) as refusal:
        load_card(str(path))
    assert "\n" not in str(refusal.value)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize(
    ("hardware", "gpu", "gpus"),
    [
        ("H100-80GB SXM, TP4", "H100-80GB SXM", 4),
        ("NVIDIA H200", "NVIDIA H200", 1),
        ("8 x H200-141GB SXM, TP4", "H200-141GB SXM", 8),
        ("2xA100", "A100", 2),
        ("none: emulates A100-80GB SXM, TP2", "none: emulates A100-80GB SXM", 2),
        ("", "", 1),
    ],
)
def test_hardware_is_a_number_of_gpus(hardware, gpu, gpus):
    card = replace(ROOFLINE, hardware=hardware)
    assert (card.gpu, card.gpus) == (gpu, gpus)


@pytest.mark.parametrize("name", model_names())
def test_every_card_that_ships_names_its_coefficients_and_says_what_it_rests_on(name):
    row = json.loads((FOLDER / f"{name}.json").read_text())
    card = load_card(name)
    assert all(set(entry) == {"value", "unit"} for entry in row["coefficients"].values())
    assert (FOLDER / f"{name}.json").read_text() == card_text(card)
    assert card.basis in set(BASES) - {NOT_SAID} and card.gpus >= 1
    assert card.source and card.error and card.name == name
