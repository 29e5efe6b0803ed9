"""Fitting: what each family recovers, what the cross-validation holds out, and what a chunk's error is."""

from itertools import product

import numpy as np
import pytest

from artifact.config import ConfigError
from artifact.latency import cross_validation as judge
from artifact.latency import families
from artifact.latency import forest as grow
from artifact.latency.profile import profile_of
from niyama.latency import Batch, load_card, model_names, seconds, with_prefill
from niyama.latency.cards import KINDS
from tests.helpers.reference_formulas import SCIKIT_LEARN

CHUNKS = (0, 32, 64, 128, 256, 384, 512, 513, 768, 1024, 1536, 2048)
MONOTONE = next(name for name in model_names() if load_card(name).kind == "monotone")


def rows(model, chunks=CHUNKS, decodes=(0, 4, 32, 128), contexts=(512, 2048), prefixes=(0, 1024), repeats=1, noise=0.0):
    """A profile's rows whose times are a model's, with noise."""
    random, found = np.random.default_rng(0), []
    for d, context, prefix, tokens in product(decodes, contexts, prefixes, chunks):
        if d + tokens == 0 or (prefix and not tokens) or (d == 0 and context != contexts[0]):
            continue
        batch = with_prefill(Batch(d, d * context, 0, 0.0, 0), prefix, tokens)
        row = {"decodes": d, "decode_context_tokens": d * context, "prefill_tokens": tokens, "context_tokens": context}
        row |= {"prefix_tokens": prefix if tokens else 0, "prefill_work": batch.prefill_work}
        for repeat in range(repeats):
            factor = float(np.exp(noise * random.standard_normal()))
            found.append({**row, "repeat": repeat, "seconds": seconds(model, batch) * factor})
    return found


def profile(name, **more):
    return profile_of(rows(load_card(name).build(), **more), {})


def test_the_linear_family_recovers_the_artifacts_coefficients():
    """Up to the spread of total tokens, which are prefill tokens and decodes."""
    own = profile("a100-llama3-8b-linear")
    found = families.fit_two_bins(own.batches, own.seconds)
    known = np.array(load_card("a100-llama3-8b-linear").coefficients).reshape(2, 6)
    for bin_, c in zip(found.reshape(2, 6), known, strict=True):
        assert bin_ == pytest.approx([c[0], 0.0, c[1] + c[2], c[1] + c[3], c[4], c[5]], rel=1e-6, abs=1e-12)


def test_the_monotone_family_predicts_a_monotone_model_exactly():
    own = profile(MONOTONE)
    model = judge.model_of("monotone", families.fit_monotone(own.batches, own.seconds))
    assert judge.predict(model, own, np.arange(len(own.seconds))) == pytest.approx(own.seconds, rel=1e-3)


@pytest.mark.parametrize("name", ["a100-llama3-8b-linear", "a100-llama3-8b-roofline"])
def test_no_coefficient_of_the_monotone_family_is_negative(name):
    """Even where the profile's own times fall: the linear model's decodes above 512 tokens, and its dip."""
    own = profile(name, noise=0.1, repeats=2)
    found = families.fit_monotone(own.batches, own.seconds)
    assert found.min() >= 0 and found[0] > 0
    assert np.all(np.diff(found[6::2]) > 0)


def test_a_bin_without_steps_is_one_clear_error():
    own = profile("a100-llama3-8b-roofline", chunks=(0, 32, 64, 128))
    with pytest.raises(ConfigError, match=r"0 steps above 512 tokens.*--kinds"):
        families.fit_two_bins(own.batches, own.seconds)


def test_a_tree_is_the_one_that_scikit_learn_grows():
    tree = SCIKIT_LEARN["tree"]
    nodes = grow.grow_tree(np.array(tree["x"]), np.array(tree["y"]), 3)

    def walk(features):
        row = 0
        while nodes[row][2] != row:
            row = row + 1 if features[int(nodes[row][0])] <= nodes[row][1] else int(nodes[row][2])
        return nodes[row][1]

    assert [walk(features) for features in tree["at"]] == pytest.approx(tree["predicted"], rel=1e-9)


def test_a_forest_stays_within_what_it_has_seen_and_is_the_same_every_time():
    own = profile("a100-llama3-8b-roofline")
    found = grow.grow_forest(own.batches, own.seconds)
    assert np.array_equal(found, grow.grow_forest(own.batches, own.seconds))
    predicted = judge.predict(judge.model_of("forest", found), own, np.arange(len(own.seconds)))
    assert own.seconds.min() <= predicted.min() and predicted.max() <= own.seconds.max()
    assert np.abs(predicted / own.seconds - 1).mean() < 0.05


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_every_family_makes_a_model_of_its_kind(kind):
    own = profile("a100-llama3-8b-linear")
    model = judge.model_of(kind, families.FAMILIES[kind](own.batches, own.seconds))
    assert model.kind == KINDS[kind]
    assert judge.predict(model, own, np.arange(5)).min() > 0


def test_repeats_of_a_shape_are_held_out_together(monkeypatch):
    """No fit of the cross-validation sees any step of a shape that it is judged by."""
    own, seen = profile("a100-llama3-8b-roofline", repeats=3, noise=0.1), []

    def watched(batches, times):
        seen.append({tuple(row) for row in batches.tolist()})
        return families.fit_monotone(batches, times)

    monkeypatch.setattr(judge, "FAMILIES", {"monotone": watched})
    held = judge.held_out("monotone", own)
    assert np.isfinite(held.ratio).all()
    assert len(seen) == judge.FOLDS
    for shapes, steps in zip(seen, judge.folds(own.shape), strict=True):
        assert shapes.isdisjoint(tuple(row) for row in own.batches[steps].tolist())
    assert set(np.concatenate(list(judge.folds(own.shape)))) == set(range(len(own.seconds)))


def test_the_margin_covers_95_percent_of_held_out_steps():
    held = judge.HeldOut("monotone", np.linspace(0.8, 1.2, 100))
    assert np.mean(1.0 / held.ratio <= held.margin) >= 0.95
    assert np.mean(1.0 / held.ratio <= held.margin * 0.999) < 0.95


def test_errors_are_those_of_hand_computed_ratios():
    row = judge.summary(np.array([0.9, 1.0, 1.2]))
    assert row["steps"] == 3
    assert row["mean_abs"] == pytest.approx(0.1)
    assert row["bias"] == pytest.approx(1 / 30)


def test_an_exact_model_has_exact_chunks_and_a_margin_makes_them_smaller():
    """Chunks count in whole tokens, and the truth is a line between measured sizes."""
    fine = tuple(range(16, 1537, 16))
    own = profile("a100-llama3-8b-linear", chunks=tuple(c for c in fine if c <= 480), prefixes=(0,))
    exact = judge.model_of("two-bin-linear", np.array(load_card("a100-llama3-8b-linear").coefficients))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "FAMILIES", {"two-bin-linear": lambda batches, times: exact.coef})
        plain = judge.chunk_errors("two-bin-linear", own)
        small = judge.chunk_errors("two-bin-linear", own, margin=1.2)
    assert len(plain) > 3
    for row in plain:
        assert abs(row["ratio"] - 1.0) <= 1.0 / row["true"]
    assert all(s["ratio"] < p["ratio"] for s, p in zip(small, plain, strict=True))


def test_a_profile_that_is_none_is_refused():
    some = rows(load_card(MONOTONE).build())
    with pytest.raises(ConfigError, match="5 steps; give at least 20"):
        profile_of(some[:5], {})
    some[3]["seconds"] = 0.0
    with pytest.raises(ConfigError, match="positive time"):
        profile_of(some, {})
