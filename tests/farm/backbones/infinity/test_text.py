"""Tokenizer and text encoder."""

import pytest
import torch
from transformers import T5TokenizerFast

from farm.backbones.infinity.text_encoder import T5TextEncoder
from farm.backbones.infinity.tokenizer import TextTokenizer
from farm.errors import InvalidPromptError, ModelSetError
from farm.zoo.recipes.t5 import word_tokenizer
from tests.tiny_infinity import WORDS, tiny_t5, tiny_tokenizer


def test_spans_are_the_characters_of_each_token():
    tokens = tiny_tokenizer().encode("a red  cat, on grass")
    pieces = [tokens.prompt[start:end].strip() for start, end in tokens.spans]
    assert pieces == ["a", "red", "", "cat", ",", "on", "grass", ""]
    assert tokens.ids[-1] == 1
    assert tokens.length == len(tokens.ids) == 8


def test_ids_are_those_of_transformers(tmp_path):
    word_tokenizer(WORDS).save(str(tmp_path / "tokenizer.json"))
    theirs = T5TokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), extra_ids=0)
    ours = TextTokenizer(tmp_path, 64)
    for prompt in ("a red cat", "the Blue dog, on grass!", "xyz ball"):
        expected = theirs(prompt, add_special_tokens=False)["input_ids"]
        assert list(ours.encode(prompt).ids) == [*expected, 1]


def test_unknown_words_become_letters():
    tokens = tiny_tokenizer().encode("fox")
    assert [tokens.prompt[s:e] for s, e in tokens.spans[-4:]] == ["f", "o", "x", ""]


def test_a_long_prompt_is_refused_with_what_fits():
    with pytest.raises(InvalidPromptError, match=r"6 tokens and 4 fit.*'a red cat on'"):
        tiny_tokenizer(5).encode("a red cat on the grass")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelSetError, match=r"tokenizer\.json is missing"):
        TextTokenizer(tmp_path, 8)


def test_rows_do_not_depend_on_padding():
    encoder = T5TextEncoder(tiny_t5())
    ids = torch.tensor([[3, 5, 7, 1, 0, 0], [3, 4, 1, 0, 0, 0]])
    present = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]).bool()
    with torch.no_grad():
        together = encoder(ids, present)
        alone = encoder(ids[1:, :3])
    torch.testing.assert_close(together[1, :3], alone[0], rtol=1e-5, atol=1e-6)
    assert encoder.width == 16
