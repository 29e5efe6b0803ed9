"""`artifact cards`, and what a GPU costs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.latency.gpu_prices import gpu_hour_usd, load_prices, price_of
from niyama.latency import load_card, model_names

H100, TP4 = load_card("h100-llama3-8b-vllm"), load_card("h100-tp4-llama3-70b-engine")


def said(capsys, *arguments):
    """What the command prints; it succeeds."""
    assert main(["cards", *arguments]) == 0
    return capsys.readouterr().out


def test_every_card_is_listed_with_what_it_is_chosen_by(capsys):
    text = said(capsys)
    lines = {line.split()[0]: line for line in text.splitlines() if line and not line.startswith((" ", "`"))}
    assert set(lines) == set(model_names())
    assert "Llama-3-70B bf16" in lines[TP4.name] and "4 x H100-80GB SXM" in lines[TP4.name]
    assert "sum of kernels" in lines[TP4.name] and "435,000 KV tokens" in lines[TP4.name]
    for word in ("engine: ", "source: ", "error: "):
        assert text.count(f"    {word}") == len(lines)


def test_the_list_as_json_has_every_fact(capsys):
    rows = json.loads(said(capsys, "--json"))
    assert [row["name"] for row in rows] == list(model_names())
    row = next(row for row in rows if row["name"] == TP4.name)
    assert (row["gpu"], row["gpus"], row["basis"]) == ("H100-80GB SXM", 4, "sum of kernels")
    assert all(row[name] == getattr(TP4, name) for name in ("engine", "source", "error", "error_p95", "kv_tokens"))


def test_one_card_says_its_coefficients_with_unit_and_meaning(capsys):
    text = said(capsys, "a100-llama3-8b-roofline")
    (line,) = (line for line in text.splitlines() if line.split()[:1] == ["floor"])
    assert line.split()[1:3] == ["0.01338239", "s"] and "reading the weights" in line
    own = json.loads(said(capsys, "a100-llama3-8b-roofline", "--json"))["coefficients"]["floor"]
    assert own["value"] == 0.01338239116 and own["unit"] == "s" and "weights" in own["meaning"]
    assert "17 rows" in said(capsys, TP4.name)


def test_a_forest_is_not_printed_whole(capsys, tmp_path):
    forest = (1.0, 0.0, *(n for i in range(40) for n in (0.0, float(i + 1), 2.0 * i + 2, 0.0, 0.01, 2.0 * i + 1)))
    nodes = (*forest, 0.0, 0.01, 80.0)
    path = tmp_path / "forest.json"
    row = {f: getattr(H100, f) for f in ("hardware", "model", "engine", "kv_tokens", "source", "error", "error_p95")}
    path.write_text(json.dumps({**row, "name": "mine", "kind": "forest", "coefficients": list(nodes)}))
    text = said(capsys, str(path))
    assert "81 rows" in text and "and 73 more: --json has them all" in text and "not said" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("h100-lama3-8b-vllm", ("did you mean 'h100-llama3-8b-vllm'?", "`python -m artifact cards`", ".json")),
        ("zzz", ("'zzz' is unknown; `python -m artifact cards` lists",)),
    ],
)
def test_an_unknown_card_is_one_line_that_names_the_command(capsys, name, words):
    assert main(["cards", name]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and not captured.out
    assert all(word in captured.err for word in words)


def test_every_gpu_of_a_card_that_ships_has_a_price_with_source_and_date():
    prices = load_prices()
    for name in model_names():
        price = price_of(load_card(name), prices)
        assert 0.5 < price.usd_per_gpu_hour < 20
        assert "https://" in price.source and "2026-" in price.source


def test_a_price_is_of_one_gpu():
    prices = load_prices()
    assert gpu_hour_usd(TP4, prices) == gpu_hour_usd(H100, prices) == 3.2
    assert TP4.gpus * gpu_hour_usd(TP4, prices) == 12.8


def test_what_the_driver_calls_a_gpu_has_its_price():
    measured = replace(H100, hardware="NVIDIA H100 80GB HBM3")
    assert gpu_hour_usd(measured, load_prices()) == gpu_hour_usd(H100, load_prices())


def own_prices(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return load_prices(path)


def test_a_users_price_wins_and_the_others_stay(tmp_path):
    prices = own_prices(tmp_path, "H100-80GB SXM: 2.5\nMy GPU: {usd_per_gpu_hour: 1, source: us, also: [mine]}\n")
    assert gpu_hour_usd(H100, prices) == 2.5
    assert gpu_hour_usd(replace(H100, hardware="NVIDIA H100 80GB HBM3"), prices) == 2.5
    assert price_of(H100, prices).source.endswith("prices.yaml")
    assert gpu_hour_usd(replace(H100, hardware="4 x mine"), prices) == 1.0
    assert prices["A100-80GB SXM"] == load_prices()["A100-80GB SXM"]


def test_a_users_price_by_another_name_of_the_gpu_wins_too(tmp_path):
    prices = own_prices(tmp_path, "NVIDIA H200: 3\n")
    assert gpu_hour_usd(load_card("h200-llama3-8b-vllm"), prices) == 3.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("H100: 2.5\n", ("'H100' is the GPU of no card", "did you mean 'H100-80GB SXM'?")),
        ("H100-80GB SXM: 0\n", ("usd_per_gpu_hour is 0", "greater than 0")),
        ("H100-80GB SXM: -1\n", ("usd_per_gpu_hour is -1",)),
        ("H100-80GB SXM: .nan\n", ("usd_per_gpu_hour is nan",)),
        ("H100-80GB SXM: 250000.0\n", ("usd_per_gpu_hour is 250000",)),
        (f"H100-80GB SXM: {10**400}\n", ("usd_per_gpu_hour is inf",)),
        ("H100-80GB SXM: '2.5'\n", ("is '2.5'", "without quotes")),
        ("H100-80GB SXM: 2.5 USD\n", ("is '2.5 USD'", "`H100-80GB SXM: 2.5`")),
        ("H100-80GB SXM: {usd_per_gpu_hour: 2, usd: 2}\n", ("usd is not a known field",)),
        ("H100-80GB SXM: {source: me}\n", ("usd_per_gpu_hour is missing",)),
        ("H100-80GB SXM: [1]\n", ("not a mapping",)),
        ("H100-80GB SXM: true\n", ("not a mapping",)),
        ("100: 2\n", ("100 is no name of a GPU",)),
        ("- H100\n", ("not a mapping",)),
        ("H100-80GB SXM: 1\nH100-80GB SXM: 2\n", ("given twice",)),
    ],
)
def test_a_wrong_file_of_prices_is_one_line(tmp_path, text, words):
    with pytest.raises(ConfigError) as refusal:
        own_prices(tmp_path, text)
    assert "\n" not in str(refusal.value) and "prices.yaml" in str(refusal.value)
    assert all(word in str(refusal.value) for word in words)


def test_a_gpu_without_a_price_says_both_ways_to_give_one():
    for card in (replace(H100, hardware="Own GPU"), replace(H100, hardware="none: emulates A100-80GB SXM, TP2")):
        with pytest.raises(ConfigError) as refusal:
            gpu_hour_usd(card, load_prices())
        assert all(word in str(refusal.value) for word in (card.name, card.gpu, "--gpu-hour", "--prices"))
    assert load_prices(None) == load_prices()
