"""Workloads: common random numbers, the arrival processes, bad specifications, and round trips on disk."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import (
    Extras,
    HashIds,
    Labels,
    Trace,
    TraceError,
    WorkloadSpec,
    build,
    load_trace,
    parse_spec,
    read_workload,
    write_jsonl,
    write_workload,
)
from traces.arrivals import hourly_requests

ARRAYS = ("arrival_s", "prompt_tokens", "output_tokens", "qos_class", "important")
FIELDS = {
    "trace": "toy",
    "requests": 1000,
    "load_qps": 4.0,
    "seed": 7,
    "arrivals": "poisson",
    "classes": [["chat", 0.25], ["code", 0.25], ["batch", 0.5]],
    "low_importance_share": 0.2,
}
PROCESSES = {
    "poisson": "poisson",
    "gamma": {"kind": "gamma", "cv": 3.0},
    "trace": "trace",
    "square": {"kind": "square", "low_qps": 2.0, "high_qps": 6.0, "dwell_s": 900.0},
    "hour-of-week": {"kind": "hour-of-week", "service": "code", "compress": 60.0},
}


def toy_trace(rows, *, with_times=True):
    """A trace whose prompt lengths are 1..rows, so that a length names its row."""
    rng = np.random.default_rng(rows)
    return Trace(
        "toy",
        np.arange(1, rows + 1, dtype=np.int32),
        rng.integers(1, 500, rows, dtype=np.int32),
        np.concatenate(([0.0], np.cumsum(rng.exponential(1.0, rows - 1)))) if with_times else None,
        "local",
        "0" * 64,
        "nobody",
        "none",
    )


TOY = toy_trace(300)


def spec(**changes):
    return parse_spec(FIELDS | changes)


def assert_same(first, second, arrays=ARRAYS):
    for name in arrays:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.integers(1, 2000),
    seed=st.integers(0, 2**70),
    process=st.sampled_from(sorted(PROCESSES)),
    low_importance_share=st.floats(0, 1),
    parts=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(sum),
)
def test_every_workload_is_well_formed_and_repeatable(requests, seed, process, low_importance_share, parts):
    wanted = spec(
        requests=requests,
        seed=seed,
        arrivals=PROCESSES[process],
        classes=[(f"c{i}", part / sum(parts)) for i, part in enumerate(parts)],
        low_importance_share=low_importance_share,
    )
    work = build(wanted, TOY)
    assert len(work) == requests and {len(getattr(work, name)) for name in ARRAYS} == {requests}
    assert work.arrival_s[0] >= 0 and (np.diff(work.arrival_s) >= 0).all()
    assert [getattr(work, name).dtype.str for name in ARRAYS] == ["<f8", "<i4", "<i4", "<i2", "|b1"]
    assert not any(getattr(work, name).flags.writeable for name in ARRAYS)
    np.testing.assert_array_equal(work.output_tokens, TOY.output_tokens[work.prompt_tokens - 1])
    assert all(parts[i] > 0 for i in np.unique(work.qos_class))  # a class of share 0 gets nobody
    assert_same(work, build(wanted, TOY))


@settings(max_examples=30, deadline=None)
@given(
    load_qps=st.floats(0.01, 1000),
    seed=st.integers(0, 1000),
    process=st.sampled_from(["poisson", "gamma", "trace"]),
)
def test_common_random_numbers_across_loads(load_qps, seed, process):
    one, other = (
        build(spec(load_qps=load_qps_, seed=seed, arrivals=PROCESSES[process]), TOY) for load_qps_ in (1.0, load_qps)
    )
    np.testing.assert_allclose(other.arrival_s * load_qps, one.arrival_s, rtol=1e-12)
    assert_same(one, other, ARRAYS[1:])


@pytest.mark.parametrize("process", PROCESSES)
def test_a_longer_workload_extends_a_shorter_one(process):
    long, short = (build(spec(requests=n, arrivals=PROCESSES[process]), TOY) for n in (5000, 700))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(long, name)[:700], getattr(short, name), err_msg=name)


def test_axes_are_independent():
    base = build(spec(), TOY)
    assert_same(base, build(spec(arrivals=PROCESSES["gamma"]), TOY), ARRAYS[1:])
    assert_same(base, build(spec(low_importance_share=0.9), TOY), ARRAYS[:4])
    assert_same(base, build(spec(classes=[["all", 1.0]]), TOY), (*ARRAYS[:3], "important"))
    assert (build(spec(seed=8), TOY).prompt_tokens != base.prompt_tokens).any()
    lengths, classes = base.prompt_tokens.astype(float), base.qos_class.astype(float)
    assert abs(np.corrcoef(lengths, classes)[0, 1]) < 0.1


def test_each_pass_is_a_fresh_permutation():
    work = build(spec(requests=900), TOY)
    passes = work.prompt_tokens.reshape(3, 300)
    for one in passes:
        assert sorted(one) == list(range(1, 301))
    assert (passes[0] != passes[1]).any() and (passes[1] != passes[2]).any()


def test_a_huge_trace_is_sampled_without_repeats_and_without_regard_to_n():
    huge = toy_trace(2_000_000, with_times=False)
    long, short = (build(spec(requests=n), huge).prompt_tokens for n in (200_000, 1000))
    assert np.unique(long).size == long.size
    np.testing.assert_array_equal(long[:1000], short)
    assert long.mean() == pytest.approx(1_000_000, rel=0.01)


def test_shares_are_met():
    work = build(spec(requests=100_000), TOY)
    np.testing.assert_allclose(np.bincount(work.qos_class) / len(work), [0.25, 0.25, 0.5], atol=0.006)
    assert (~work.important).mean() == pytest.approx(0.2, abs=0.005)
    assert build(spec(low_importance_share=0.0), TOY).important.all()
    assert not build(spec(low_importance_share=1.0), TOY).important.any()


@pytest.mark.parametrize("process", PROCESSES)
def test_the_mean_load_is_the_one_asked_for(process):
    n = 168 * 60 * 4 * 2 if process == "hour-of-week" else 120_000  # whole weeks
    work = build(spec(requests=n, arrivals=PROCESSES[process]), TOY)
    assert n / work.arrival_s[-1] == pytest.approx(4.0, rel=0.03)


def test_gamma_has_its_coefficient_of_variation():
    gaps = np.diff(build(spec(requests=200_000, arrivals=PROCESSES["gamma"]), TOY).arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(3.0, rel=0.03)


def test_the_square_wave_keeps_its_two_rates_low_first():
    arrival_s = build(spec(requests=72_000, arrivals=PROCESSES["square"]), TOY).arrival_s
    counts = np.histogram(arrival_s, bins=np.arange(0, 18_001, 900))[0]
    assert counts[0::2].mean() / 900 == pytest.approx(2.0, rel=0.03)
    assert counts[1::2].mean() / 900 == pytest.approx(6.0, rel=0.03)


def test_hour_of_week_follows_the_week():
    week_s, requests = 168 * 60.0, hourly_requests("code")
    arrival_s = build(spec(requests=100_000, arrivals=PROCESSES["hour-of-week"]), TOY).arrival_s
    counts = np.histogram(arrival_s[arrival_s < week_s], bins=np.linspace(0, week_s, 169))[0]
    assert np.corrcoef(counts, requests)[0, 1] > 0.99
    assert requests.sum() == 16_803_695  # the rows of azure-code-2024-week
    assert hourly_requests("conv").sum() == 27_303_999


def test_trace_arrivals_repeat_end_to_end():
    work = build(spec(requests=900, arrivals="trace"), TOY)
    first, second = work.arrival_s[:300], work.arrival_s[300:600]
    np.testing.assert_allclose(np.diff(first) / np.diff(TOY.arrival_s), np.diff(first)[0] / np.diff(TOY.arrival_s)[0])
    np.testing.assert_allclose(second - first, 300 / 4.0)
    with pytest.raises(TraceError, match="has no timestamps"):
        build(spec(arrivals="trace"), toy_trace(5, with_times=False))
    with pytest.raises(TraceError, match=r"1 timestamps span 0\.0 s"):
        build(spec(arrivals="trace"), toy_trace(1))


def test_rows_above_the_limit_are_dropped_and_counted():
    fits = int((TOY.prompt_tokens + TOY.output_tokens <= 200).sum())
    work = build(spec(max_total_tokens=200), TOY)
    assert (work.prompt_tokens + work.output_tokens).max() <= 200
    assert work.trace_rows_dropped == 300 - fits > 0
    assert build(spec(max_total_tokens=2**40), TOY).trace_rows_dropped == 0
    with pytest.raises(TraceError, match="max_total_tokens = 2 drops every row"):
        build(
            spec(max_total_tokens=2),
            Trace("toy", *[np.full(3, 9, np.int32)] * 2, None, "local", None, "", ""),
        )


def test_the_trace_must_be_the_one_named_or_its_twin():
    with pytest.raises(TraceError, match="'other' in the specification, but 'toy'"):
        build(spec(trace="other"), TOY)
    twin = Trace("toy-synth", TOY.prompt_tokens, TOY.output_tokens, None, "synthetic", None, "", "")
    work = build(spec(), twin)
    assert (work.trace_name, work.trace_source) == ("toy-synth", "synthetic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"load_qps": float("nan")}, "load_qps = nan: Input should be"),
        ({"load_qps": float("inf")}, "load_qps = inf: Input should be a finite number"),
        ({"load_qps": 0}, "load_qps = 0: Input should be greater than or equal to"),
        ({"load_qps": 1e-300}, "load_qps = 1e-300: Input should be greater than or equal to"),
        ({"load_qps": "4"}, "load_qps = '4': Input should be a valid number"),
        ({"seed": -1}, "seed = -1: Input should be greater than or equal to 0"),
        ({"requests": 0}, "requests = 0: Input should be greater than or equal to 1"),
        ({"requests": 1.5}, "requests = 1.5: Input should be a valid integer"),
        ({"requests": True}, "requests = True: Input should be a valid integer"),
        ({"classes": [["a", 0.5], ["b", 0.4]]}, "has shares that sum to 0.9: make them sum to 1"),
        ({"classes": [["a", 0.5], ["a", 0.5]]}, r"\['a', 'a'\] repeats a name"),
        ({"classes": []}, r"classes = \[\]: "),
        ({"classes": [["a", 2.0], ["b", -1.0]]}, r"classes.0.1 = 2.0: .*; classes.1.1 = -1.0: "),
        ({"low_importance_share": 1.1}, "low_importance_share = 1.1: "),
        ({"low_importance_share": float("nan")}, "low_importance_share = nan: "),
        ({"max_total_tokens": 1}, "max_total_tokens = 1: "),
        (
            {"arrivals": "uniform"},
            "arrivals = .*'uniform'.*'poisson', 'gamma', 'trace', 'replay', 'square', 'hour-of-week'",
        ),
        ({"arrivals": "gamma"}, "arrivals.gamma.cv is missing"),
        ({"arrivals": {"kind": "gamma", "cv": 0}}, "arrivals.gamma.cv = 0: "),
        ({"arrivals": PROCESSES["square"] | {"low_qps": 1.0}}, "load_qps = 4.0 is not the mean .*: set 3.5"),
        ({"arrivals": PROCESSES["hour-of-week"] | {"service": "chat"}}, "service = 'chat': "),
        ({"burst": 1}, "burst = 1: Extra inputs are not permitted"),
    ],
)
def test_bad_specifications_say_what_and_why_in_one_line(change, message):
    with pytest.raises(TraceError, match=message) as caught:
        spec(**change)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("workload: ")


def test_a_missing_field_is_named():
    with pytest.raises(TraceError, match="workload: seed is missing: add it"):
        parse_spec({name: value for name, value in FIELDS.items() if name != "seed"})


@pytest.mark.parametrize("process", PROCESSES)
def test_specifications_survive_yaml_and_json(process):
    wanted = spec(arrivals=PROCESSES[process])
    plain = wanted.model_dump(mode="json")
    assert parse_spec(yaml.safe_load(yaml.safe_dump(plain))) == wanted
    assert WorkloadSpec.model_validate_json(json.dumps(plain)) == wanted


def test_parquet_gives_the_same_workload_back(tmp_path):
    work = build(spec(max_total_tokens=400), TOY)
    path = tmp_path / "deep" / "workload.parquet"
    write_workload(work, path)
    again = read_workload(path)
    assert_same(work, again)
    for name in ("spec", "class_names", "trace_name", "trace_source", "trace_sha256", "trace_rows_dropped"):
        assert getattr(work, name) == getattr(again, name)
    first = path.read_bytes()
    write_workload(work, path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["workload.parquet"]


def test_other_parquet_files_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(TraceError, match="not a readable parquet"):
        read_workload(path)
    path.write_text("hello")
    with pytest.raises(TraceError, match="not a readable parquet"):
        read_workload(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TraceError, match="workload format is None"):
        read_workload(path)


def test_tenants_sessions_and_hash_ids_survive_parquet(tmp_path):
    labels = Labels(np.arange(len(TOY), dtype=np.int32) % 3, ("a", "b", "c"))
    ids = HashIds(np.arange(2 * len(TOY)), np.arange(len(TOY) + 1) * 2)
    work = build(spec(), replace(TOY, extras=Extras(tenant=labels, session=labels, hash_ids=ids)))
    write_workload(work, tmp_path / "w.parquet")
    again = read_workload(tmp_path / "w.parquet")
    assert_same(work, again, ARRAYS)
    assert again.extras.tenant.by_row().tolist() == work.extras.tenant.by_row().tolist()
    assert again.extras.session.by_row().tolist() == [labels.names[labels.codes[i]] for i in rows_of(work)]
    assert again.extras.hash_ids.ids.tolist() == work.extras.hash_ids.ids.tolist()


def rows_of(work):
    """The row of TOY that each request has: that of its first hash id."""
    return work.extras.hash_ids.ids[::2] // 2


def test_jsonl_gives_the_same_requests_back(tmp_path):
    work, path = build(spec(), TOY), tmp_path / "w.jsonl"
    write_jsonl(work, path)
    again = load_trace(str(path))
    assert_same(work, again, ("prompt_tokens", "output_tokens"))
    np.testing.assert_allclose(again.arrival_s, work.arrival_s, atol=1e-9)
    assert again.extras.qos_class.by_row().tolist() == [work.class_names[i] for i in work.qos_class]
    assert again.extras.important.tolist() == work.important.tolist()
    row = json.loads(path.read_text().splitlines()[0])
    assert row.keys() == {"timestamp", "input_length", "output_length", "qos_class", "important"}
    assert row["qos_class"] in work.class_names


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"timestamp": -1}, "line 2: timestamp is -1.*; write a finite number, 0 or more"),
        ({"output_length": 1.5}, "line 2: output_length is 1.5; write a whole number"),
        ({"important": 2}, "line 2: important is 2; write one of"),
    ],
)
def test_bad_jsonl_is_located(tmp_path, change, fault):
    good = {"timestamp": 5, "input_length": 1, "output_length": 1, "qos_class": "chat", "important": 1}
    path = tmp_path / "w.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(TraceError, match=fault):
        load_trace(str(path))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    work, path = build(spec(), TOY), tmp_path / "w.parquet"
    write_workload(work, path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_workload(work, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_building_is_fast():
    wanted, trace = spec(requests=360_000), toy_trace(100_000)
    build(wanted, trace)
    started_s = time.perf_counter()
    build(wanted, trace)
    assert time.perf_counter() - started_s < 0.5  # 0.02 s on a quiet machine
