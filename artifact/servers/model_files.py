"""Local model folders without a download: a shape's `config.json`, a small byte-level tokenizer and, if small, weights.

An emulated server and one with `--load-format dummy` need no weights. One byte of text is one token and nothing is
added, so a text of n ASCII characters is a prompt of exactly n tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# After the 256 bytes, in this order; the names are those of Llama 3.
SPECIAL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
BYTES = 256
BOS_ID, EOS_ID = BYTES, BYTES + 1
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# llama3-8b: the tensors of Llama-3-8B, with the context length of 3.1 so that long trace rows fit; no weights.
# one-layer: what is measured on the CPU. Its matrices are large against its one attention head, so that a step's time
# comes from tokens, context and decodes in about the proportions of Llama-3-8B, and a core takes about as long for it
# as an A100 does for that model: 512 and 2,048 prompt tokens 38 and 180 ms, 512 tokens behind 6,144 others 61 ms.
# tiny: for tests of outputs, with random weights: vLLM's dummy ones are so small that an output would not depend on the
# context. No scheduler can be judged by it: attention takes most of its time, so that small chunks are never worth it.
SHAPES = {
    "llama3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    },
    "one-layer": {
        "hidden_size": 384,
        "intermediate_size": 2048,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "vocab_size": 320,
        "max_position_embeddings": 16384,
        "torch_dtype": "float32",
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 320,
        "max_position_embeddings": 16384,
        "torch_dtype": "float32",
    },
}


def model_folder(shape: str, root: Path) -> Path:
    """The folder of that shape below `root`, written unless it is there; its name ends in a digest of its contents.

    Atomic: a reader sees the whole folder or none, and processes that write at the same time do no harm. Nothing is
    ever replaced. Raises ValueError for an unknown shape and for a folder whose files somebody has changed.
    """
    if shape not in SHAPES:
        raise ValueError(f"model shape {shape!r} is unknown; use one of {', '.join(SHAPES)}")
    files = _contents(shape)
    digest = hashlib.sha256(b"".join(name.encode() + content for name, content in sorted(files.items())))
    folder = Path(root) / f"{shape}-{digest.hexdigest()[:8]}"
    if not folder.exists():
        _write(folder, files)
    if not all((folder / name).is_file() and (folder / name).read_bytes() == files[name] for name in files):
        raise ValueError(f"model folder {str(folder)!r} does not hold what was written there; remove it")
    return folder


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Create the folder with these files, unless another process does so first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        fresh.chmod(0o755)
        try:
            os.rename(fresh, folder)
        except OSError:
            if not folder.is_dir():  # else another process has won
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # gone by then, unless it was not needed or something failed


def _contents(shape: str) -> dict[str, bytes]:
    """File name -> content of a model folder; the same on every call."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        **SHAPES[shape],
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL_TOKENS[BOS_ID - BYTES],
        "eos_token": SPECIAL_TOKENS[EOS_ID - BYTES],
        "model_max_length": SHAPES[shape]["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    files = {
        "config.json": json.dumps(config, indent=1).encode(),
        "tokenizer.json": _byte_tokenizer().encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config, indent=1).encode(),
    }
    return files | ({"model.safetensors": _random_weights(config)} if shape == "tiny" else {})


def _random_weights(config: dict[str, Any]) -> bytes:
    """A safetensors file of float32 normal weights, each matrix scaled to keep its input's variance."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,), "lm_head": (vocabulary, hidden)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    random = np.random.default_rng(0)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in shapes.items():
        values = random.standard_normal(shape) / np.sqrt(shape[-1]) if len(shape) == 2 else np.ones(shape)
        raw = values.astype("<f4").tobytes()
        header[f"{name}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": (len(data), len(data) + len(raw))}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text + data


def _byte_tokenizer() -> str:
    """A byte-level BPE without merges, as the text of tokenizer.json; ids 0 to 93 are the characters `!` to `~`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # needed by servers only

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    return tokenizer.to_str(pretty=False)
