"""Which token fills up a prompt: transformers is the oracle, on folders as they are published."""

import json

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from farm.backbones.tokenizer import PromptTokenizer
from farm.errors import ModelSetError

START, END = "<|startoftext|>", "<|endoftext|>"
TOKENS = 12
LIKE_SD2 = {"bos_token": START, "eos_token": END, "unk_token": END, "model_max_length": TOKENS}


def whole(content):
    """A token as older files spell it out."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"content": content, **flags}


def in_config(token):
    """The same in a config, where such a table says what it is."""
    return {"__type": "AddedToken", **token} if isinstance(token, dict) else token


def write_tokenizer(folder, config, special=None):
    """CLIP's alphabet with "!" first, as CLIP has it, and one merged word."""
    folder.mkdir(exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", START, END]
    assert pieces[0] == "!"
    ids = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if special is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder


@pytest.mark.parametrize("spelled", [str, whole])
@pytest.mark.parametrize(
    ("config", "special", "padding"),
    [
        pytest.param({"pad_token": END}, {"pad_token": "!"}, "!", id="sd2"),
        pytest.param({"pad_token": END}, {"pad_token": END}, END, id="sd1"),
        pytest.param({"pad_token": "!"}, {"eos_token": END}, "!", id="map-without"),
        pytest.param({"pad_token": "!"}, None, "!", id="no-map"),
        pytest.param({}, {"pad_token": "!"}, "!", id="map-alone"),
        pytest.param({}, None, END, id="nowhere"),
    ],
)
def test_padding_is_what_transformers_pads_with(tmp_path, config, special, padding, spelled):
    named = {name: in_config(spelled(token)) for name, token in config.items()}
    if special is not None:
        special = {name: spelled(token) for name, token in special.items()}
    folder = write_tokenizer(tmp_path / "tokenizer", LIKE_SD2 | named, special)
    oracle = CLIPTokenizer.from_pretrained(folder)
    assert oracle.pad_token == padding
    expected = oracle("a cat", padding="max_length", max_length=TOKENS).input_ids
    assert PromptTokenizer(folder, TOKENS).encode("a cat").ids == tuple(expected)


def test_a_newer_config_needs_no_map(tmp_path):
    ids = json.loads((write_tokenizer(tmp_path / "tokenizer", {}) / "vocab.json").read_text())
    added = {str(ids[token]): {**whole(token), "special": True} for token in (START, END)}
    config = LIKE_SD2 | {"pad_token": END, "added_tokens_decoder": added}
    folder = write_tokenizer(tmp_path / "tokenizer", config, {"pad_token": "!"})
    oracle = CLIPTokenizer.from_pretrained(folder)
    assert oracle.pad_token == END
    expected = oracle("a cat", padding="max_length", max_length=TOKENS).input_ids
    assert PromptTokenizer(folder, TOKENS).encode("a cat").ids == tuple(expected)


def test_a_map_that_is_no_json_is_named(tmp_path):
    folder = write_tokenizer(tmp_path / "tokenizer", LIKE_SD2)
    (folder / "special_tokens_map.json").write_text("{")
    with pytest.raises(ModelSetError, match=r"special_tokens_map\.json is no JSON"):
        PromptTokenizer(folder, TOKENS)
