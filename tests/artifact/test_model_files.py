"""Local model folders: the same every time, never half there, and what tokenizers make of them."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("tokenizers", reason="tokenizers comes with vLLM, which is not installed")

import tokenizers

from artifact.servers.model_files import EOS_ID, SHAPES, SPECIAL_TOKENS, model_folder


def test_a_folder_is_written_once_and_is_the_same_for_everyone(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: model_folder("tiny", tmp_path / "a"), range(16)))
    (folder,) = folders
    assert list(folder.parent.iterdir()) == [folder]  # nothing half-written is left beside it
    written = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert model_folder("tiny", tmp_path / "a") == folder
    assert written == {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    elsewhere = model_folder("tiny", tmp_path / "b")
    assert {f.name: f.read_bytes() for f in elsewhere.iterdir()} == {name: data for name, (_, data) in written.items()}


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="model shape 'huge' is unknown; use one of llama3-8b, one-layer, tiny"):
        model_folder("huge", tmp_path)
    folder = model_folder("llama3-8b", tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not hold what was written there; remove it"):
        model_folder("llama3-8b", tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_byte_is_one_token(tmp_path, shape):
    folder = model_folder(shape, tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("plain text, 1 2 3\n", "naïve — ∑", "\x00\x7f", ""):
        ids = tokenizer.encode(text).ids
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text
    assert (
        tokenizer.token_to_id(SPECIAL_TOKENS[1])
        == EOS_ID
        == json.loads((folder / "config.json").read_text())["eos_token_id"]
    )
    assert tokenizer.get_vocab_size() <= SHAPES[shape]["vocab_size"]


def test_tiny_has_weights_of_the_shapes_it_says(tmp_path):
    raw = (model_folder("tiny", tmp_path) / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    assert (8 + length) % 8 == 0
    assert max(ends) == len(raw) - 8 - length
    assert header["lm_head.weight"]["shape"] == [SHAPES["tiny"]["vocab_size"], SHAPES["tiny"]["hidden_size"]]
    assert not (model_folder("llama3-8b", tmp_path) / "model.safetensors").exists()
