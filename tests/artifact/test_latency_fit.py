"""The committed roofline fit is what the script produces, and it is a model a GPU could obey."""

import json

import numpy as np
import pytest

from artifact.latency import roofline_fit as lf
from niyama.latency import load_card

REFERENCE = json.loads((lf.FOLDER / lf.FIT_NAME).read_text())
PARAMETERS = REFERENCE["parameters"]


def batch_array(prefill, prefix, decodes, context):
    """Every combination of the four axes that is not empty; `context` is per decode."""
    axes = np.meshgrid(prefill, prefix, decodes, context, indexing="ij")
    p, k, d, c = (axis.ravel().astype(float) for axis in axes)
    return np.column_stack([p, np.where(p > 0, k, 0), d, d * c])[(p > 0) | (d > 0)]


FINE = batch_array(np.arange(0, 2501, 50), (0, 1000, 8000), np.arange(0, 257, 16), (0, 500, 8000))


def test_refit_gives_the_committed_parameters():
    batches = lf.grid()
    found = lf.fit(batches, lf.linear_seconds(batches))
    assert found == pytest.approx(PARAMETERS, rel=1e-8)


def test_refit_of_the_committed_grid_file_gives_them_too():
    table = np.loadtxt(lf.FOLDER / lf.GRID_NAME, delimiter=",", skiprows=1)
    assert lf.fit(table[:, :4], table[:, 4]) == pytest.approx(PARAMETERS, rel=1e-6)


def test_running_it_again_writes_the_same_bytes(tmp_path):
    lf.main(tmp_path)
    for name in (lf.GRID_NAME, lf.FIT_NAME):
        assert (tmp_path / name).read_bytes() == (lf.FOLDER / name).read_bytes(), name


def test_the_shipped_card_is_the_fit():
    card = load_card("a100-llama3-8b-roofline")
    assert card.coefficients == pytest.approx(tuple(REFERENCE["coefficients"].values()), rel=1e-6)


def test_efficiencies_are_physical_and_errors_small():
    assert all(0 < PARAMETERS[name] <= 1 for name in lf.PARAMETERS[:3])
    assert PARAMETERS["overhead_s"] > 0
    error = REFERENCE["relative_error"]["all"]
    assert error["mean_abs"] < 0.06
    assert error["p90_abs"] < 0.12


def test_linear_model_has_its_known_values_and_its_known_drop():
    prefills = np.array([[tokens, 0, 0, 0] for tokens in (256, 330, 512, 513)], dtype=float)
    assert lf.linear_seconds(prefills) == pytest.approx([0.0357, 0.0418, 0.0566, 0.0542], abs=5e-5)


@pytest.mark.parametrize("column", range(4), ids=lf.BATCH)
def test_monotone_in_every_input(column):
    more = FINE.copy()
    more[:, column] += 1
    assert np.all(lf.roofline_seconds(more, PARAMETERS) >= lf.roofline_seconds(FINE, PARAMETERS))


@pytest.mark.parametrize("column", range(4), ids=lf.BATCH)
def test_continuous_one_unit_more_never_costs_more_than_its_slope(column):
    c = REFERENCE["coefficients"]
    more = FINE.copy()
    more[:, column] += 1
    slope = {
        "prefill_tokens": c["c_tok"] + c["c_attn"] * (FINE[:, 0] + FINE[:, 1] + 0.5),
        "prefix_tokens": c["c_attn"] * FINE[:, 0],
        "decodes": c["c_tok"],
        "decode_context_tokens": c["c_ctx"],
    }[lf.BATCH[column]]
    step = lf.roofline_seconds(more, PARAMETERS) - lf.roofline_seconds(FINE, PARAMETERS)
    assert np.all(step <= slope + 1e-9)


def test_never_faster_than_the_hardware():
    """All FLOP and all bytes at peak, perfectly overlapped and without overhead, take at least this long."""
    tokens, pairs = FINE[:, 0] + FINE[:, 2], lf.attention_work(FINE) + FINE[:, 3]
    flop = 2 * lf.LINEAR_PARAMETERS * tokens + lf.ATTENTION_FLOP_PER_PAIR * pairs
    moved_bytes = lf.WEIGHT_BYTES + lf.KV_BYTES_PER_TOKEN * (FINE[:, 1] + FINE[:, 3])
    limit_s = np.maximum(flop / lf.PEAK_FLOP_PER_S, moved_bytes / lf.PEAK_BYTES_PER_S)
    assert np.all(lf.roofline_seconds(FINE, PARAMETERS) > limit_s)
