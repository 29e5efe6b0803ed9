"""Kernel tables, the cards made from them, and the commands that fit."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.latency import accuracy, published, slices, vllm_steps
from artifact.latency import cli as commands
from artifact.latency.kernels import Kernels
from artifact.latency.profile import kernel_rows, read_profile
from artifact.latency.shapes import DEEPSEEK_V3, GPT_OSS_120B, LLAMA3_8B, QWEN_7B
from artifact.results.tables import read_table, write_table
from figures import predictor_accuracy
from niyama.latency import Batch, load_card, seconds
from niyama.latency.cards import FOLDER
from niyama.vllm.profiling.step_grid import GRIDS

SHAPES = pytest.mark.parametrize("name", published.NAMES)
#: Configuration -> the ends of its cards' names, the fastest first.
CARDS = {
    name: ("kernels",) * (name in published.PAPER) + ("vllm",) * (shape.gpu.system in published.TODAY) + ("engine",)
    for name, shape in published.NAMES.items()
}
REPORT = json.loads(published.REPORT.read_text())


def test_sums_of_kernels_are_those_that_others_find():
    """aiconfigurator sums the same tables: within 6 %. Vidur profiled an older engine: within 15 %."""
    rows = published.comparisons()
    for source, most in ((published.AICONFIGURATOR, 0.06), (published.VIDUR, 0.15)):
        own = [row["ours_over_theirs"] for row in rows if row["source"] == source]
        assert len(own) >= 4
        assert max(abs(ratio - 1) for ratio in own) < most


def test_a_chunk_behind_a_prefix_is_no_further_from_others_than_one_without():
    """Vidur's older kernel took longer for both; the share of the whole does not make it worse."""
    alone, *behind = (row["ours_over_theirs"] for row in published.chunk_comparisons())
    assert alone < min(behind) and max(behind) < 1.0


@SHAPES
def test_no_step_beats_the_hardware(name):
    """All FLOP and all bytes of weights and KV, at the datasheet's peaks and perfectly overlapped, take less time."""
    shape = published.NAMES[name]
    pair_flop = 4 * shape.layers * shape.heads * shape.head_size / (2 if shape.window else 1)
    weight_bytes = 2.0 if shape.experts is None else shape.experts.bytes
    peak_flop_per_s = shape.gpu.peak_flop_per_s * (2 if weight_bytes == 1.0 else 1)  # FP8 has twice the peak
    models = [load_card(f"{name}-{end}").build() for end in CARDS[name]]
    for row in kernel_rows(shape, GRIDS["short"][0]):
        tokens, context = row["prefill_tokens"] + row["decodes"], row["decode_context_tokens"]
        flop = 2 * shape.linear_parameters * tokens + pair_flop * (row["prefill_work"] + context)
        moved = weight_bytes * shape.linear_parameters / shape.gpus + shape.kv_bytes_per_token * (
            context + row["prefix_tokens"]
        )
        least_s = max(flop / shape.gpus / peak_flop_per_s, moved / shape.gpu.peak_bytes_per_s)
        batch = Batch(row["decodes"], context, row["prefill_tokens"], row["prefill_work"], row["prefix_tokens"])
        fitted = [seconds(model, batch) for model in models]
        assert least_s < row["seconds"]
        assert least_s < fitted[0] and fitted == sorted(fitted)


def test_a_product_between_measured_shapes_lies_between_them():
    kernels = Kernels(LLAMA3_8B)
    around = [kernels.gemm(512, n, 4096) for n in (16384, 28672, 65536)]
    assert around == sorted(around)
    assert kernels.gemm(512, 4 * 65536, 4096) == pytest.approx(4 * kernels.gemm(512, 65536, 4096))
    assert kernels.gemm(3, 6144, 4096) == pytest.approx((kernels.gemm(2, 6144, 4096) + kernels.gemm(4, 6144, 4096)) / 2)


def test_attention_of_a_chunk_is_its_share_of_the_whole():
    kernels = Kernels(LLAMA3_8B)
    whole, first, second = (kernels.chunk_attention(*c) for c in ((4096, 0), (2048, 0), (2048, 2048)))
    assert second == pytest.approx(0.75 * whole)
    assert kernels.chunk_attention(0, 4096) == 0 == kernels.decode_attention(0, 100)
    assert kernels.chunk_attention(16, 0) <= first


def test_two_gpus_pay_an_all_reduce_and_one_does_not():
    assert Kernels(LLAMA3_8B).all_reduce(2048) == 0
    assert Kernels(QWEN_7B).all_reduce(2048) > Kernels(QWEN_7B).all_reduce(1) > 0


def test_a_model_that_was_not_measured_is_one_clear_error():
    with pytest.raises(ValueError, match="no row by tokens fits this model"):
        Kernels(replace(LLAMA3_8B, heads=33))


@pytest.mark.slow
def test_the_cards_that_ship_are_what_the_script_writes(tmp_path):
    published.main(tmp_path, tmp_path / "report.json")
    assert len(list(tmp_path.glob("*.json"))) == 1 + sum(map(len, CARDS.values()))
    for name, part in ((name, end) for name, ends in CARDS.items() for end in ends):
        fresh, shipped = load_card(str(tmp_path / f"{name}-{part}.json")), load_card(f"{name}-{part}")
        assert fresh.coefficients == pytest.approx(shipped.coefficients, rel=1e-4, abs=1e-9)
        assert replace(fresh, coefficients=shipped.coefficients) == shipped
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT


@SHAPES
def test_kv_tokens_are_the_memory_arithmetic(name):
    shape, card = published.NAMES[name], load_card(f"{name}-engine")
    used = shape.weight_bytes + card.kv_tokens * shape.kv_bytes_per_token + shape.window_bytes
    assert 0.9 * shape.gpu.memory_bytes - 6e9 < used < 0.9 * shape.gpu.memory_bytes
    assert card.kv_tokens == shape.kv_tokens
    assert shape.kv_arithmetic in card.source


def test_what_was_not_measured_is_said():
    for name in ("a100-tp2-qwen-7b", "h100-tp4-llama3-70b"):
        assert "not measured" in load_card(f"{name}-engine").error
        assert "lower bound" in load_card(f"{name}-kernels").error
    assert REPORT["engine_map"]["relative_error"]["all"]["mean_abs"] < 0.08


def test_slices_keep_the_neighbours_of_a_shape_that_was_not_measured(tmp_path):
    """A made-up collection with one measured neighbour on each side, and rows that are to be left out."""
    n = (4096, 6144, 16384, 65536)
    gemm = [
        {"gemm_dtype": dtype, "m": m, "n": a, "k": k, "latency": 0.1}
        for dtype in ("bfloat16", "fp8") for m in (1, 512, 99999) for a in n for k in (4096, 12288, 16384, 65536)
    ]  # fmt: skip
    heads = {"num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "kv_cache_dtype": "bfloat16", "latency": 0.1}
    context = [{**heads, "batch_size": b, "isl": s} for b in (1, 2) for s in (16, 32)]
    decode = [{**heads, "batch_size": b, "isl": 1, "step": s} for b in (1, 1024) for s in (15, 31)]
    reduce = [{"num_gpus": 2, "backend": b, "message_size": 128, "latency": 0.1} for b in ("vllm_graph", "vllm_eager")]
    for part, rows in (
        ("gemm/vllm/0.14.0/gemm_perf", gemm),
        ("attention/vllm/0.14.0/context_attention_perf", context),
        ("attention/vllm/0.14.0/generation_attention_perf", decode),
        ("comm/vllm/0.14.0/custom_allreduce_perf", reduce),
    ):
        path = tmp_path / "a100_sxm" / f"{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(path)
    cut = {
        name: part(tmp_path, "a100_sxm", [LLAMA3_8B])
        for name, part in (("gemm", slices._gemm), ("attention", slices._attention), ("reduce", slices._all_reduce))
    }
    assert set(zip(cut["gemm"]["n"], cut["gemm"]["k"], strict=True)) == {
        (6144, 4096), (4096, 4096), (16384, 4096), (65536, 4096), (4096, 12288), (4096, 16384),
    }  # fmt: skip
    assert set(cut["gemm"]["m"]) == {1, 512}
    assert set(zip(cut["attention"]["op"], cut["attention"]["batch"], cut["attention"]["tokens"], strict=True)) == {
        ("context", 1, 16), ("context", 1, 32), ("decode", 1, 16), ("decode", 1, 32),
    }  # fmt: skip
    assert cut["reduce"].empty  # one GPU


@pytest.fixture
def profile_file(tmp_path):
    """A profile as `artifact profile` writes it: the short grid of the 8B kernels, three noisy repeats."""
    random, path = np.random.default_rng(0), tmp_path / "mine.parquet"
    rows = [
        {**row, "seconds": row["seconds"] * random.lognormal(0, 0.02), "schedule_s": 1e-4, "repeat": k}
        for row in kernel_rows(LLAMA3_8B, GRIDS["short"][0])
        for k in range(3)
    ]
    engine = {"device": "NVIDIA X", "vllm": "0.32.0", "torch": "2.9", "dtype": "bfloat16", "kv_tokens": 123456}
    write_table(path, rows, backend="gpu", model_shape="llama3-8b", grid="short", engine=engine)
    return path


def test_fit_writes_cards_that_simulate_takes(profile_file, capsys):
    assert main(["fit", str(profile_file)]) == 0
    assert "monotone" in capsys.readouterr().out
    for kind in ("two-bin-linear", "forest", "monotone"):
        path = profile_file.parent / f"mine-{kind}.json"
        card = load_card(str(path))
        assert (card.name, card.kind, card.kv_tokens) == (f"mine-{kind}", kind, 123456)
        assert (card.hardware, card.engine) == ("NVIDIA X", "vLLM 0.32.0, torch 2.9")
        assert "held out by shape" in card.error and 1.0 < card.error_p95 < 2.0
    point = "simulate --trace azure-code-2023-synth --system niyama --load 2 --requests 50 --json --latency".split()
    assert main([*point, str(path), "--predictor", str(profile_file.parent / "mine-forest.json")]) == 0
    assert json.loads(capsys.readouterr().out)["latency"] == "mine-monotone"


def test_fit_says_its_numbers_as_json_too(profile_file, tmp_path, capsys):
    out = tmp_path / "cards"
    assert main(["fit", str(profile_file), "--kinds", "monotone", "--name", "x", "--out", str(out), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["card"] == str(out / "x-monotone.json")
    assert set(answer["regions"]) == {"all", "decode only", "mixed", "prefill only"}
    assert answer["error_p95"] == load_card(answer["card"]).error_p95


def test_fit_refuses_what_is_no_profile(tmp_path, capsys):
    path = tmp_path / "other.parquet"
    write_table(path, [{"seconds": 1.0}])
    assert main(["fit", str(path)]) == 2
    assert "has no column" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="does not say 'engine'"):
        commands.card_facts(path, {})


def test_a_kernel_profile_is_fitted_like_a_measured_one(tmp_path, capsys):
    path = tmp_path / "qwen.parquet"
    assert main(["kernel-profile", "a100-tp2-qwen-7b", "--out", str(path)]) == 0
    profile = read_profile(path)
    assert len(profile.seconds) > 1000
    facts = commands.card_facts(path, profile.about)
    card = load_card("a100-tp2-qwen-7b-kernels")
    assert all(facts[field] == getattr(card, field) for field in ("hardware", "model", "engine", "kv_tokens", "source"))


def test_accuracy_rows_are_what_the_figure_reads(profile_file, tmp_path):
    rows = accuracy.rows({"mine": read_profile(profile_file)})
    write_table(tmp_path / "t.parquet", rows)
    frame = read_table(tmp_path / "t.parquet").to_pandas()
    assert set(predictor_accuracy.COLUMNS) <= set(frame.columns)
    assert set(frame["predictor"]) == set(predictor_accuracy.LOOKS)
    text = predictor_accuracy.text_table({"predictor_accuracy": frame})
    assert len(text) == len(frame)
    whole = frame[(frame["test"] == "steps") & (frame["part"] == "all")].set_index("predictor")
    assert set(whole["count"]) == {len(read_profile(profile_file).seconds)}
    assert set(accuracy.SOURCES) == set(predictor_accuracy.PROFILES)


def test_spread_of_known_ratios():
    row = accuracy.spread(np.array([0.85, 0.95, 1.0, 1.05, 1.3]))
    assert (row["count"], row["within_claim"], row["above"]) == (5, 0.6, 0.4)
    assert row["mean_abs"] == pytest.approx(0.11)
    assert row["ratio_quantiles"][50] == 1.0 and len(row["ratio_quantiles"]) == 101


def engine_rows():
    found = REPORT["engine_map"]
    return vllm_steps.comparisons(found["factor"], found["offset_s"])


def test_the_map_to_vllm_is_within_a_tenth_of_every_step_it_was_not_fitted_to():
    found = vllm_steps.engine_map()
    assert abs(found.left_out).max() < 0.1 and found.mean_abs < 0.05
    assert 0.9 < found.factor < 1.2 and 0.0 <= found.offset_s < 0.001


def test_steps_measured_elsewhere_are_told_with_their_ratio():
    """What comes out far off is not left out: an A100 by the bandwidth of its memory, an engine a year older."""
    ratios = {(row["hardware"], row["scale"] == 1.0, row["prefill"] > 0, row["engine"]): [] for row in engine_rows()}
    for row in engine_rows():
        ratios[row["hardware"], row["scale"] == 1.0, row["prefill"] > 0, row["engine"]].append(row["ours_over_theirs"])
    assert ratios["H200-141GB SXM, TP8", True, True, "vLLM 0.11.0"] == pytest.approx([0.93], abs=0.01)
    assert ratios["H100-80GB SXM, TP1", True, False, "vLLM 0.10.2"] == pytest.approx([0.88], abs=0.01)
    assert ratios["H100-80GB SXM, TP2", True, False, "vLLM 0.10.2"] == pytest.approx([0.96], abs=0.01)
    assert ratios["H100-80GB SXM, TP2", True, True, "vLLM 0.10.2"] == pytest.approx([0.61], abs=0.01)
    assert ratios["H100-80GB SXM, TP1", False, False, "vLLM 0.23, A100"] == pytest.approx([1.47, 1.57], abs=0.01)


def test_cards_say_what_was_measured_of_their_own_configuration_and_no_other():
    assert "216 were measured" in load_card("h100-tp2-gpt-oss-120b-vllm").error
    assert "384 were measured" in load_card("h200-tp8-deepseek-v3-vllm").error
    assert "6.51 were measured" in load_card("h200-llama3-8b-vllm").error
    for name in ("h200-gpt-oss-120b", "h100-llama3-8b", "h100-tp4-llama3-70b"):
        assert "not measured: error unknown" in load_card(f"{name}-vllm").error
        assert "2.0 times what vLLM 0.30.0 takes" in load_card(f"{name}-engine").error
    assert "vLLM 0.30.0" not in load_card("a100-llama3-8b-engine").error


def test_a_window_costs_less_and_only_what_is_in_it():
    kernels = Kernels(GPT_OSS_120B)
    assert kernels.decode_attention(64, 8192, 128) < kernels.decode_attention(64, 8192) / 4
    assert kernels.chunk_attention(512, 8192, 128) == kernels.chunk_attention(512, 0, 128)
    assert kernels.chunk_attention(512, 8192) > kernels.chunk_attention(512, 0)


def test_latent_attention_of_a_chunk_is_what_it_adds_to_its_prefix():
    kernels = Kernels(DEEPSEEK_V3)
    whole, first = (kernels.chunk_attention(tokens, 0) for tokens in (8192, 4096))
    assert kernels.chunk_attention(4096, 4096) == pytest.approx(whole - first)
    assert kernels.chunk_attention(16, 4096) >= kernels.chunk_attention(16, 0)


def test_the_shared_expert_is_hidden_in_small_steps_only():
    """Up to 256 tokens the slower of shared and chosen counts, above that both."""
    kernels, alone = Kernels(DEEPSEEK_V3), Kernels(replace(DEEPSEEK_V3, experts=replace(DEEPSEEK_V3.experts, shared=0)))
    for tokens, layers in ((256, 0), (257, 58)):
        shared = kernels.gemm_sum(tokens, DEEPSEEK_V3.mlp_gemms(2048))
        more = kernels.elementwise(tokens, 2048) - kernels.elementwise(tokens, 0)
        extra = kernels.step(tokens, 0, 0, 0) - alone.step(tokens, 0, 0, 0)
        assert extra == pytest.approx(layers * shared + 58 * more, rel=1e-6)


def test_experts_that_were_not_measured_are_one_clear_error():
    with pytest.raises(ValueError, match="no row by tokens fits this model"):
        Kernels(replace(GPT_OSS_120B, experts=replace(GPT_OSS_120B.experts, chosen=5)))


README = (FOLDER.parent / "README.md").read_text()


@SHAPES
def test_the_readme_has_every_configurations_kv_tokens(name):
    shape = published.NAMES[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| {shape.name.split()[0]}"))
    rows = [line for line in README.splitlines() if line.startswith(row.partition(",")[0].partition(" (")[0])]
    assert f"{shape.kv_tokens:,d}" in " ".join(rows)


def test_the_readme_has_the_ratios_to_what_others_measured():
    others = [row for row in REPORT["beside_engines"] if row["engine"] != vllm_steps.ENGINE]
    for row in others:
        assert f"{row['ours_over_theirs']:.2f}" in README and f"{row['authors_over_theirs']:.1f}" in README
    own = [row["ours_over_theirs"] for row in REPORT["beside_engines"] if row["engine"] == vllm_steps.ENGINE]
    assert f"| {min(own):.2f} to {max(own):.2f} |" in README
    assert f"({published.vllm_map().mean_abs:.1%} off".replace("%", " %") in README
