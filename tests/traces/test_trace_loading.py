"""Where a trace comes from, what the catalog promises, and what the synthetic twins keep of the real ones."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
from pydantic import ValidationError

import traces.trace as trace_module
from tests.helpers.trace_server import AZURE_BODY, make_entry
from traces import (
    DownloadError,
    Trace,
    TraceError,
    build,
    describe,
    find_entry,
    fixed_trace,
    load_catalog,
    load_sketches,
    load_trace,
    local_dir_from_env,
    parse_spec,
    sample,
)
from traces.catalog import embedded_path
from traces.files import sha256_of
from traces.synth import SYNTHETIC_ROWS, quantile_probs

REAL = ["azure-code-2023", "azure-conv-2023", "sharegpt-8k", "mooncake-conv"]


@pytest.fixture
def tiny(monkeypatch, server):
    """A catalog of one data set, served over HTTP, with a sketch."""
    entry = make_entry(url=server.serve("/tiny", AZURE_BODY), sketch="azure-code-2023")
    monkeypatch.setattr(trace_module, "find_entry", lambda name: {"tiny": entry}[name])
    return entry


def put(folder, entry, body=AZURE_BODY):
    path = folder / entry.local
    path.parent.mkdir(parents=True)
    path.write_bytes(body)


def test_local_then_cache_then_download(tiny, tmp_path, server):
    local, cache = tmp_path / "local", tmp_path / "cache"
    local.mkdir()
    fetched = load_trace("tiny", local_dir=local, cache_dir=cache)
    assert (fetched.source, len(server.paths["/tiny"].seen_ranges)) == ("download", 1)
    assert load_trace("tiny", local_dir=local, cache_dir=cache, download=False).source == "download"
    put(local, tiny)
    own = load_trace("tiny", local_dir=local, cache_dir=cache)
    assert (own.source, own.name, own.sha256) == ("local", "tiny", tiny.sha256)
    assert len(server.paths["/tiny"].seen_ranges) == 1
    np.testing.assert_array_equal(own.prompt_tokens, fetched.prompt_tokens)


@pytest.mark.parametrize("place", ["local", "cache"])
def test_a_tampered_file_is_never_used(tiny, tmp_path, place):
    (tmp_path / "local").mkdir()
    put(tmp_path / place, tiny, AZURE_BODY + b"\r\n2023-11-16 18:17:05,1,1")
    with pytest.raises(TraceError, match=f"expected {tiny.sha256}"):
        load_trace("tiny", local_dir=tmp_path / "local", cache_dir=tmp_path / "cache")


def test_the_twin_is_the_last_resort_and_says_so(tiny, tmp_path, server, caplog):
    server.paths["/tiny"].status = 503
    with caplog.at_level(logging.WARNING):
        twin = load_trace("tiny", cache_dir=tmp_path)
    assert (twin.name, twin.source, twin.sha256, len(twin)) == ("tiny-synth", "synthetic", None, SYNTHETIC_ROWS)
    assert "SYNTHETIC tiny-synth instead of tiny" in caplog.text and "503" in caplog.text
    caplog.clear()
    assert load_trace("tiny-synth", cache_dir=tmp_path).name == "tiny-synth"
    assert caplog.text == ""  # asked for by name: nothing to warn of


def test_no_twin_means_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(trace_module, "find_entry", lambda name: make_entry())
    with pytest.raises(DownloadError, match="downloading is off"):
        load_trace("tiny", cache_dir=tmp_path, download=False)
    with pytest.raises(TraceError, match="has no sketch"):
        load_trace("tiny-synth", cache_dir=tmp_path)


def test_names_and_folders_that_do_not_exist(tmp_path):
    with pytest.raises(TraceError, match=r"did you mean 'azure-code-2023'\?.*known names: .*sharegpt-8k"):
        load_trace("azure-code-23", cache_dir=tmp_path)
    with pytest.raises(TraceError, match="unknown trace 'nonsense'"):
        load_trace("nonsense-synth", cache_dir=tmp_path)
    with pytest.raises(TraceError, match="does not exist"):
        load_trace("azure-code-2023", local_dir=tmp_path / "typo", cache_dir=tmp_path)
    with pytest.raises(TraceError, match="hour-of-week"):
        load_trace("azure-2024-hourly", cache_dir=tmp_path, download=False)
    with pytest.raises(TraceError, match="sharegpt_trace"):
        load_trace("sharegpt-v3-text", cache_dir=tmp_path)


def test_the_environment_is_read_at_the_edge_only(tmp_path, monkeypatch):
    monkeypatch.setenv("NIYAMA_TRACES", str(tmp_path / "typo"))  # load_trace would fail if it looked
    assert load_trace("azure-code-2023", cache_dir=tmp_path, download=False).source == "synthetic"
    assert local_dir_from_env({"NIYAMA_TRACES": "x"}).name == "x"
    assert local_dir_from_env({}) is None and local_dir_from_env({"NIYAMA_TRACES": ""}) is None


def test_a_trace_cannot_be_changed_or_misnamed():
    trace = load_trace("azure-code-2024-week-synth")
    with pytest.raises(ValueError, match="read-only"):
        trace.prompt_tokens[0] = 1
    with pytest.raises(AttributeError):
        trace.name = "azure-code-2024-week"
    arrays = (trace.prompt_tokens, trace.output_tokens, None)
    with pytest.raises(TraceError, match="if and only if synthetic"):
        Trace("azure-code-2024-week", *arrays, "synthetic", None, "", "")
    with pytest.raises(TraceError, match="has shape"):
        Trace("x", trace.prompt_tokens, trace.output_tokens[:-1], None, "local", None, "", "")


def test_the_catalog_is_strict_and_complete():
    catalog, sketches = load_catalog(), load_sketches()
    assert set(REAL) < set(catalog) and len(catalog) == 11
    assert {entry.sketch for entry in catalog.values()} - {None} == set(sketches)
    for entry in catalog.values():
        assert entry.filename == entry.local.rsplit("/", 1)[-1]
        assert entry.licence and entry.citation and entry.note
    for wrong in (
        {"sha256": "abc"},
        {"url": "ftp://x"},
        {"surprise": 1},
        {"local": "../x"},
        {"reader": "xml"},
    ):
        with pytest.raises(ValidationError):
            make_entry(**wrong)


def test_the_embedded_table_has_the_catalogs_bytes():
    entry = find_entry("azure-2024-hourly")
    assert sha256_of(embedded_path(entry)) == entry.sha256


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_catalogs_statistics(real_dir, tmp_path, name):
    entry = find_entry(name)
    if not (real_dir / entry.local).is_file():
        pytest.skip(f"{name} is not in the folder of real traces")
    facts = describe(load_trace(name, local_dir=real_dir, cache_dir=tmp_path, download=False))
    assert facts["source"] == "local" and facts["rows"] == entry.rows
    assert facts["prompt_tokens"]["p50"] == entry.prompt_p50
    assert facts["output_tokens"]["p50"] == entry.output_p50


@pytest.mark.parametrize("name", REAL)
def test_a_twin_resembles_its_real_trace(real_dir, tmp_path, name):
    if not (real_dir / find_entry(name).local).is_file():
        pytest.skip(f"{name} is not in the folder of real traces")
    real = load_trace(name, local_dir=real_dir, cache_dir=tmp_path, download=False)
    twin = load_trace(f"{name}-synth")
    for field in ("prompt_tokens", "output_tokens"):
        assert getattr(twin, field).mean() == pytest.approx(getattr(real, field).mean(), rel=0.02)


@pytest.mark.parametrize("name", load_sketches())
def test_samples_have_the_quantiles_of_their_sketch(name):
    sketch = load_sketches()[name]
    for tokens, quantiles in zip(sample(sketch, 200_000, 1), (sketch.prompt_q, sketch.output_q), strict=True):
        assert tokens.dtype == np.int32 and tokens.min() >= 1
        for p in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99):
            # Where a distribution jumps, its value at p is not defined to 2 %: let p move a little too.
            low, high = np.interp([p - 0.004, p + 0.004], quantile_probs(), quantiles)
            assert low * 0.98 - 0.5 <= np.quantile(tokens, p) <= high * 1.02 + 0.5, (name, p)


@pytest.mark.parametrize("name", load_sketches())
def test_samples_hit_the_published_targets_and_dependence(name):
    sketch = load_sketches()[name]
    prompt, output = sample(sketch, 200_000, 2)
    got = {"prompt": prompt, "output": output, "total": prompt + output}
    for target, value in sketch.targets.items():
        column, statistic = target.split("_")
        tokens = got[column]
        actual = tokens.mean() if statistic == "mean" else np.percentile(tokens, float(statistic[1:]))
        assert actual == pytest.approx(value, rel=0.03, abs=1.5), target
    if sketch.spearman is not None:
        ranks = [
            np.argsort(np.argsort(tokens + np.random.default_rng(seed).random(tokens.size)))  # ties at random
            for seed, tokens in enumerate((prompt, output))
        ]
        assert np.corrcoef(ranks)[0, 1] == pytest.approx(sketch.spearman, abs=0.03)


def test_twins_are_always_the_same():
    digests = {
        hashlib.sha256(load_trace("azure-conv-2024-week-synth").output_tokens.tobytes()).hexdigest() for _ in "ab"
    }
    assert len(digests) == 1
    with pytest.raises(TraceError, match="n is 0"):
        sample(load_sketches()["burstgpt-1"], 0, 1)


def test_a_fixed_trace_repeats_one_pair_of_lengths():
    trace = load_trace("fixed-10000x500-synth")
    assert (trace.name, trace.source, len(trace)) == ("fixed-10000x500-synth", "synthetic", 1)
    spec = parse_spec(
        {
            "trace": trace.name,
            "requests": 7,
            "load_qps": 0.5,
            "seed": 3,
            "arrivals": "poisson",
            "classes": [("Q1", 1.0)],
            "low_importance_share": 0.0,
        }
    )
    workload = build(spec, trace)
    assert workload.prompt_tokens.tolist() == [10_000] * 7 and workload.output_tokens.tolist() == [500] * 7


@pytest.mark.parametrize("name", ["fixed-0x5-synth", "fixed-5x-synth", "fixed-5x5", "fixed-5x5000000000-synth"])
def test_a_fixed_trace_needs_two_lengths_and_says_that_it_is_synthetic(name):
    with pytest.raises(TraceError, match="unknown trace"):
        load_trace(name)


def test_a_fixed_trace_has_lengths_that_a_trace_can_have():
    with pytest.raises(TraceError, match="output_tokens of a fixed trace is 0; give 1 to"):
        fixed_trace(5, 0)
