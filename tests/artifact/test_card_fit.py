"""A card fitted to step times: it finds the model that made them, and is one that everything takes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from artifact import card_fit
from artifact.__main__ import main
from artifact.config import RunSpec
from artifact.runs import run
from artifact.step_summary import card_seconds
from artifact.sweep import identity
from artifact.tables import write_table
from niyama.latency import load_card, model_names

ROOFLINE, LINEAR = "a100-llama3-8b-roofline", "a100-llama3-8b-linear"
ENGINE = {
    "device": "NVIDIA H100 80GB HBM3",
    "dtype": "bfloat16",
    "kv_tokens": 430_016,
    "vllm": "0.32.0",
    "torch": "2.13",
}
ABOUT = {"engine": ENGINE, "model_shape": "llama3-8b"}
SCHEDULING_S = 0.0005


def step_times(name=ROOFLINE, times=1.0, noise=0.0, repeats=3):
    """Rows as of a profile: what the card says, `times` as fast, beside scheduling."""
    rows = []
    shapes = itertools.product((0, 1, 32, 256), (256, 2048), (0, 64, 256, 512, 1024, 4096), (0, 2048))
    for decodes, context, prefill, prefix in shapes:
        if decodes + prefill > 0 and (prefill > 0 or prefix == 0):
            batch = {"decodes": decodes, "decode_context_tokens": decodes * context, "prefill_tokens": prefill}
            batch |= {"prefix_tokens": prefix, "prefill_work": prefill * (prefix + prefill / 2)}
            rows += [{**batch, "context_tokens": context, "repeat": k} for k in range(repeats)]
    factor = times * np.exp(noise * np.random.default_rng(0).standard_normal(len(rows)))
    for row, s in zip(rows, card_seconds(name, rows) * factor, strict=True):
        row |= {"seconds": float(s) + SCHEDULING_S, "schedule_s": SCHEDULING_S}
    return rows


@pytest.mark.parametrize("times", [1.0, 0.4])
def test_the_model_that_made_the_times_is_found_without_the_scheduling(times):
    card = card_fit.fitted_card(step_times(times=times), ABOUT)
    assert card.coefficients == pytest.approx([times * c for c in load_card(ROOFLINE).coefficients], rel=1e-4)
    assert card.error.startswith("mean abs 0.0%")
    assert (card.name, card.hardware) == ("nvidia-h100-80gb-hbm3-llama3-8b-roofline", "NVIDIA H100 80GB HBM3")
    assert card.kv_tokens == 430_016 and card.name not in model_names()


def test_outliers_among_the_repeats_do_not_matter():
    rows = step_times()
    for row in rows[::3]:
        row["seconds"] *= 5  # one of three
    assert card_fit.fitted_card(rows, ABOUT).error.startswith("mean abs 0.0%")


def test_what_it_cannot_follow_is_in_its_error():
    card = card_fit.fitted_card(step_times(LINEAR), ABOUT)
    batches, times_s = card_fit.batches_and_seconds(step_times(LINEAR))
    off = np.abs(card_fit.roofline_seconds(card.coefficients, batches) / times_s - 1)
    assert 0.01 < off.mean() < 0.1 and card.error.startswith(f"mean abs {off.mean():.1%}, p90")


def test_its_formula_is_the_kernels():
    rows = step_times(noise=0.05)
    batches, _ = card_fit.batches_and_seconds(rows)
    once = [row for row in rows if row["repeat"] == 0]
    assert card_fit.roofline_seconds(load_card(ROOFLINE).coefficients, batches) == pytest.approx(
        card_seconds(ROOFLINE, once), rel=1e-12
    )


def test_the_command_writes_a_card_that_a_run_takes(tmp_path, capsys):
    table, out = tmp_path / "step_times.parquet", tmp_path / "card.json"
    write_table(table, step_times(times=0.5, noise=0.02), **ABOUT)
    assert main(["card", str(table), "--out", str(out)]) == 0
    said, card = capsys.readouterr().out, json.loads(out.read_text())
    assert card["name"] in said and str(out) in said
    spec = RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=2.0, requests=20, latency=str(out))
    found = identity(run(spec))
    assert (found["latency"], found["predictor"]) == (card["name"], f"{card['name']} (oracle)")


def test_mistakes_are_one_line(tmp_path, capsys):
    table = tmp_path / "step_times.parquet"
    write_table(table, step_times()[:9], **ABOUT)
    for arguments, words in (
        ([str(table), "--out", str(tmp_path / "card.yaml")], "give a file that ends in .json"),
        ([str(table), "--out", str(tmp_path / "card.json")], "3 shapes are too few to fit 5 coefficients"),
        ([str(tmp_path / "none.parquet"), "--out", str(tmp_path / "card.json")], "none.parquet: is missing"),
    ):
        assert main(["card", *arguments]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
