"""What a model holds and keeps: computed from its published shape, compared with what was worked out by hand."""

from dataclasses import replace

import pytest

from artifact.latency.published import NAMES
from artifact.latency.shapes import (
    DEEPSEEK_V3,
    GPT_OSS_120B,
    H100,
    LLAMA3_8B,
    LLAMA3_70B,
    QWEN3_8B,
    QWEN3_32B,
    RESERVED_BYTES,
)

#: Billions of weights on the models' pages, and those of one token where experts are chosen.
PAGES = [
    (LLAMA3_8B, 8.03),
    (LLAMA3_70B, 70.55),
    (QWEN3_8B, 8.19),
    (QWEN3_32B, 32.8),
    (GPT_OSS_120B, 116.8),
    (DEEPSEEK_V3, 671),
]


@pytest.mark.parametrize(("shape", "billions"), PAGES, ids=lambda value: getattr(value, "name", ""))
def test_weights_counted_from_the_shape_are_those_of_the_models_page(shape, billions):
    assert shape.counted_parameters / 1e9 == pytest.approx(billions, rel=2e-3)
    assert shape.parameters == pytest.approx(shape.counted_parameters, rel=1e-3)


def test_only_the_chosen_experts_work():
    """Their pages: 5.1 and 37 billion weights for a token, with the embeddings, of which the input's only look up."""
    for shape, billions in ((GPT_OSS_120B, 5.13), (DEEPSEEK_V3, 37.5)):
        assert (shape.linear_parameters + shape.vocabulary * shape.hidden) / 1e9 == pytest.approx(billions, rel=0.03)


@pytest.mark.parametrize(
    ("shape", "per_token"),
    [
        (LLAMA3_8B, 131_072),  # 32 layers, keys and values, 8 heads of 128, 2 bytes: 32 * 2 * 8 * 128 * 2
        (LLAMA3_70B, 81_920),  # 80 layers, 2 of the 8 heads on each of 4 GPUs: 80 * 2 * 2 * 128 * 2
        (QWEN3_32B, 131_072),  # 64 layers, 4 of the 8 heads on each of 2 GPUs: 64 * 2 * 4 * 128 * 2
        (GPT_OSS_120B, 18_432),  # 18 of 36 layers keep all tokens, 4 of 8 heads of 64: 18 * 2 * 4 * 64 * 2
        (DEEPSEEK_V3, 70_272),  # 61 layers, 512 latent and 64 rotary values for all heads: 61 * 576 * 2
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bytes_of_kv_per_token_and_gpu(shape, per_token):
    assert shape.kv_bytes_per_token == per_token


def test_windows_are_kept_whole_for_256_requests():
    """128 tokens are 8 blocks of 16, and the ninth is the one that a window begins in: 256 * 144 tokens."""
    assert GPT_OSS_120B.window_bytes == 256 * 144 * 18_432
    assert LLAMA3_8B.window_bytes == 0


def test_kv_tokens_by_hand():
    """(0.9 x memory - weights - 5.47 GB) / bytes per token; to 5,000."""
    assert NAMES["h100-llama3-8b"].kv_tokens == 420_000  # (76.45 - 16.06 - 5.47) GB / 131,072 = 419,000
    assert NAMES["h200-llama3-8b"].kv_tokens == 865_000  # (135.11 - 16.06 - 5.47) GB / 131,072 = 866,500
    assert NAMES["h200-tp4-llama3-70b"].kv_tokens == 1_150_000  # (135.11 - 35.28 - 5.47) GB / 81,920 = 1,151,900
    assert NAMES["h100-tp2-qwen3-32b"].kv_tokens == 290_000  # (76.45 - 32.76 - 5.47) GB / 131,072 = 291,600
    # 64.38 GiB of weights over two GPUs: (76.45 - 34.56 - 5.47 - 0.68) GB / 18,432 = 1,939,000
    assert NAMES["h100-tp2-gpt-oss-120b"].kv_tokens == 1_940_000
    # 671.03 GB in FP8; 1.88 GB more for embeddings, logits and routers in bf16; 6.83 GB that every GPU has and not one
    # alone: (135.11 - 84.97 - 5.47) GB / 70,272 = 635,700
    assert NAMES["h200-tp8-deepseek-v3"].kv_tokens == 635_000


def test_what_does_not_fit_has_no_card():
    """gpt-oss-120b leaves one H100 less KV than a prompt takes; Qwen3-32B less than 50,000 tokens."""
    assert replace(GPT_OSS_120B, gpus=1).kv_tokens < 20_000
    assert replace(QWEN3_32B, gpus=1).kv_tokens < 50_000


def test_the_arithmetic_is_within_3_percent_of_what_vllm_reports():
    """vLLM 0.30.0 on an H100 with Qwen3-8B, 0.9 of memory: 377,024 tokens (silybench-data, derived/csv/runs.csv)."""
    assert QWEN3_8B.gpu is H100 and RESERVED_BYTES == 5.47e9
    assert QWEN3_8B.kv_tokens == pytest.approx(377_024, rel=0.03)
