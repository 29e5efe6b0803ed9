"""A model hub's cache with the configurations of the models that vLLM's tests name: no weights, no network.

The scheduler reads of a model only whether it generates, how long a text may be, and whether it takes images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from artifact.servers.model_files import model_folder

_REVISION = "0" * 40  # any commit will do; the cache's layout wants one
_OPT = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "ffn_dim": 3072,
    "word_embed_proj_dim": 768,
    "max_position_embeddings": 2048,
    "vocab_size": 50272,
    "torch_dtype": "float16",
}
_LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "image_token_index": 32000,
    "image_seq_length": 576,
    "torch_dtype": "float16",
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
    "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
}
_MODELS = {"facebook/opt-125m": _OPT, "facebook/opt-350m": _OPT, "llava-hf/llava-1.5-7b-hf": _LLAVA}


def stand_ins(home: Path) -> dict[str, str]:
    """Write the cache below `home`; the environment variables with which it is found and nothing is fetched."""
    tokenizer = model_folder("llama3-8b", home)
    for name, config in _MODELS.items():
        folder = home / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / _REVISION
        _write(folder / "refs" / "main", _REVISION)
        _write(snapshot / "config.json", _text(config))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            _write(snapshot / file, (tokenizer / file).read_text(encoding="utf-8"))
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _text(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=1)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
