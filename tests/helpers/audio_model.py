"""A tiny multimodal model with random weights, made here: Qwen2-Audio, whose processor needs no torchvision, no hub.

A second of audio makes 25 embeddings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

from artifact.servers.model_files import BOS_ID, BYTES, EOS_ID, SHAPES, SPECIAL_TOKENS, model_folder

AUDIO_ID = BYTES + len(SPECIAL_TOKENS)  # of the first of these
AUDIO_TOKENS = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
SAMPLES_PER_S = 1600  # few mel frames a second would do for noise, but vLLM wants 3,000 of them for each audio
CHUNK_S = 30


def audio_model_folder(root: Path) -> Path:
    """A new folder below `root` with its configuration, tokenizer, processor and weights."""
    folder = model_folder("tiny", root)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    folder = root / "tiny-audio"
    _save_model(folder)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in AUDIO_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"processor_class": "Qwen2AudioProcessor"}))
    extractor = WhisperFeatureExtractor(
        feature_size=8, sampling_rate=SAMPLES_PER_S, hop_length=SAMPLES_PER_S // 100, chunk_length=CHUNK_S, n_fft=64
    )
    extractor.save_pretrained(folder)
    return folder


def _save_model(folder: Path) -> None:
    """Weights large enough for what is said to depend on what was heard."""
    shape: dict[str, Any] = SHAPES["tiny"]
    text = {"model_type": "qwen2", "initializer_range": 0.15, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID, **shape}
    audio = {"num_mel_bins": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    audio |= {"d_model": 32, "initializer_range": 0.3}
    torch.manual_seed(0)
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=AUDIO_ID)
    config.architectures = ["Qwen2AudioForConditionalGeneration"]
    Qwen2AudioForConditionalGeneration(config).float().save_pretrained(folder)
    file = folder / "model.safetensors"  # in which transformers 5.19 doubles the names' "model"
    weights = {name.replace("model.model.", "model."): weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
