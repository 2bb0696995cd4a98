from pathlib import Path

import pytest

import farm.zoo.weights
from farm.backbones.tokenizer import PromptTokenizer, PromptTokens
from farm.errors import InvalidPromptError, UnknownWordError
from farm.methods.style_diffusion.words import (
    changed_words,
    changes_noun,
    find_words,
    kept_content,
    word_positions,
)
from tests.farm.methods.style_diffusion.prompts import tokens_of


def test_each_word_has_its_pieces():
    (tokens,) = tokens_of("a hippopotamus in snow")
    assert tokens.pieces == ("a", "hipp", "opot", "amus", "in", "snow")
    assert word_positions(tokens) == [[1], [2, 3, 4], [5], [6]]


def test_words_are_measured_in_bytes():
    (tokens,) = tokens_of("crème brûlée on ice")  # 6, 8, 2 and 3 bytes
    assert word_positions(tokens) == [[1, 2], [3, 4], [5], [6]]


def test_any_white_space_separates():
    (tokens,) = tokens_of("a  red\ndog ")
    assert word_positions(tokens) == [[1], [2], [3]]


def test_scenes_tokenizer_with_letters_it_does_not_know():
    folder = Path(farm.zoo.weights.__path__[0]) / "scenes" / "tokenizer"
    tokens = PromptTokenizer(folder, 48).encode("a red café, circle")
    positions = word_positions(tokens)
    assert [len(p) for p in positions] == [1, 1, len(tokens.pieces) - 3, 1]
    assert find_words(tokens, "circle") == [len(tokens.pieces)]


def test_a_word_is_found_at_all_its_places():
    (tokens,) = tokens_of("a cat and a kitten")
    assert find_words(tokens, "a") == [1, 4]
    assert find_words(tokens, "kitten") == [5, 6]


def test_a_phrase_is_found_where_its_words_stand_in_a_row():
    (tokens,) = tokens_of("red dog by a red cat")
    assert find_words(tokens, "red cat") == [5, 6]


def test_case_and_punctuation_are_forgiven_only_where_nothing_fits_exactly():
    (tokens,) = tokens_of("a Hat, a hat and (hat)")
    assert find_words(tokens, "hat") == [4]
    assert find_words(tokens, "HAT") == [2, 4, 6, 7]  # "(hat)" has two pieces


@pytest.mark.parametrize("word", ["tiger", "dog red", "", "  ", ","])
def test_an_unknown_word_is_answered_with_the_words_there_are(word):
    (tokens,) = tokens_of("a red dog")
    with pytest.raises(UnknownWordError, match=r"'a red dog'.*a, red, dog"):
        find_words(tokens, word)


def test_pieces_that_cross_words_are_refused():
    tokens = PromptTokens("ab cd", (0, 2, 3, 1), ("abc", "d"))
    with pytest.raises(InvalidPromptError, match="'ab'"):
        word_positions(tokens)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a red ring on the sand", "a blue ring on the sand", False),
        ("a red ring on the sand", "a red cross on the sand", True),
        ("a red ring in the snow", "a red ring on the sand", True),
        ("a dotted red ring", "a striped red ring", False),
        ("a plain, red ring", "a wild, red ring", True),  # what a comma ends is taken for a thing
        ("a cat", "a cat with a hat", True),
        ("a cat with a hat", "a cat", True),
        ("a cat", "a big cat", False),
        ("a ring in the night", "a ring of the night", False),  # function words show nothing
        ("Cat.", "Dog.", True),
        ("a cat", "a cat", False),
    ],
)
def test_nouns_end_their_phrases(source, target, expected):
    assert changes_noun(source, target) is expected


def test_words_that_stay_are_paired_across_prompts_of_different_length():
    source, target = tokens_of("a cat on sand", "a big cat on sand")
    assert kept_content(source, target) == [([2], [3]), ([4], [5])]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a red dog", "a blue dog", ([1], [1])),
        ("a red dog", "a blue cat", ([1, 2], [1, 2])),
        ("a dog", "a sitting dog", ([], [1])),
        ("a big red dog", "a dog", ([1, 2], [])),
        ("a red dog on sand", "a dog on very white snow", ([1, 4], [3, 4, 5])),
    ],
)
def test_changed_words(source, target, expected):
    assert changed_words(source.split(), target.split()) == expected
