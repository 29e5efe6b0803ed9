"""Tiny models, one of each family that vLLM's CPU build can serve: what their config.json says, weights are made up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_ALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "torch_dtype": "float32", "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257, "hidden_act": "silu",
    "num_hidden_layers": 2,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
_WINDOWS = {
    "num_hidden_layers": 4, "sliding_window": 64, "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
}  # fmt: skip
#: By the name that people know the family by.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
    },
    "qwen3-moe": {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1, **_EXPERTS,
    },
    "mistral": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 64,
    },
    "mixtral": {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "sliding_window": 64,
        "query_pre_attn_scalar": 32, "hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "tie_word_embeddings": True,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 64,
        "num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "query_pre_attn_scalar": 32, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "original_max_position_embeddings": 16384,
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"], "model_type": "granite", "embedding_multiplier": 1.0,
        "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 0.18,
    },
    "olmo2": {
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2",
    },
    "olmo3": {
        "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", **_WINDOWS,
    },
    "glm4": {
        "architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "attention_bias": True,
        "partial_rotary_factor": 0.5,
    },
    "glm4-moe": {
        "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "n_routed_experts": 4,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "norm_topk_prob": True, "use_qk_norm": True,
        "partial_rotary_factor": 0.5,
    },
    "gpt-oss": {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_local_experts": 4,
        "num_experts_per_tok": 2, "num_experts": 4, "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"], "attention_bias": True, "swiglu_limit": 7.0,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 4096,
        },
        "torch_dtype": "bfloat16",
    },
    "llama4": {
        "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "num_hidden_layers": 4,
        "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 128, "attention_chunk_size": 256, "no_rope_layer_interval": 4, "use_qk_norm": True,
        "attn_temperature_tuning": False, "torch_dtype": "bfloat16",
    },
    "minimax-m2": {
        "architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2", "num_local_experts": 4,
        "num_experts_per_tok": 2, "scoring_func": "softmax", "use_qk_norm": True, "qk_norm_type": "per_layer",
        "rotary_dim": 16, "use_routing_bias": True, "attn_type_list": [1, 1], "num_mtp_modules": 0,
    },
    "cohere2": {
        "architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", "logit_scale": 1.0, "layer_norm_eps": 1e-05,
        "tie_word_embeddings": True, **_WINDOWS,
    },
    "starcoder2": {
        "architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "use_bias": True,
        "norm_epsilon": 1e-05,
    },
    "ernie4.5": {
        "architectures": ["Ernie4_5ForCausalLM"], "model_type": "ernie4_5", "use_bias": False,
    },
    "hunyuan": {
        "architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense", "attention_bias": False,
        "use_qk_norm": True, "rope_scaling": None,
    },
    "seed-oss": {
        "architectures": ["SeedOssForCausalLM"], "model_type": "seed_oss", "attention_bias": True,
        "attention_out_bias": False, "mlp_bias": False,
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "no_rope_layer_interval": 4,
        "num_hidden_layers": 4,
    },
    "exaone4": {
        "architectures": ["Exaone4ForCausalLM"], "model_type": "exaone4", "sliding_window_pattern": 4, **_WINDOWS,
    },
    "nemotron": {
        "architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "partial_rotary_factor": 0.5,
        "norm_eps": 1e-05, "hidden_act": "relu2",
    },
    "opt": {
        "architectures": ["OPTForCausalLM"], "model_type": "opt", "ffn_dim": 128, "word_embed_proj_dim": 64,
        "do_layer_norm_before": True,
    },
    "apertus": {
        "architectures": ["ApertusForCausalLM"], "model_type": "apertus", "hidden_act": "xielu",
    },
    "arcee": {
        "architectures": ["ArceeForCausalLM"], "model_type": "arcee", "hidden_act": "relu2",
    },
}  # fmt: skip
#: GDN and full attention, three to one.
QWEN3_NEXT: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_hidden_layers": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"], "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 64, "linear_value_head_dim": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1, **_EXPERTS,
    "torch_dtype": "bfloat16",  # the CPU's GDN knows no other
}  # fmt: skip


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    """The folder, made, with the config.json of a model that is as the others but for `config`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**_ALL, **config}))
    return folder


def random_weight(weight: torch.Tensor) -> None:
    """In place of vLLM's dummy weights, which are so small that no output would depend on its prompt."""
    import torch

    if torch.is_floating_point(weight):
        drawn = torch.Generator().manual_seed(31 * sum(weight.shape) + weight.dim())
        scale = 1 / math.sqrt(weight.shape[-1]) if weight.dim() > 1 else 0.2
        values = scale * torch.randn(weight.shape, generator=drawn) + (weight.dim() < 2)
        weight.data.copy_(values.to(weight.dtype))
