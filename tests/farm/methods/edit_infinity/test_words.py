import pytest

from farm.errors import UnknownWordError
from farm.methods.edit_infinity.words import find_word, words_of
from tests.tiny_infinity import tiny_tokenizer

PROMPT = "a red cat, on the grass and a Red dog"


def found(phrase, prompt=PROMPT, **asked):
    tokens = tiny_tokenizer(40).encode(prompt)
    return [prompt[slice(*tokens.spans[n])].strip() for n in find_word(tokens, phrase, **asked)]


@pytest.mark.parametrize(
    ("phrase", "pieces"),
    [
        ("cat", ["cat"]),
        ("CAT!", ["cat"]),
        ("red cat", ["red", "cat"]),
        ("grass, dog", ["grass"]),
        (" dog ", ["dog"]),
    ],
)
def test_words_are_found_without_case_and_punctuation(phrase, pieces):
    assert found(phrase) == pieces


def test_the_occurrence_that_is_asked_for_is_taken():
    tokens = tiny_tokenizer(40).encode(PROMPT)
    first, second = find_word(tokens, "red", 1), find_word(tokens, "red", 2)
    assert find_word(tokens, "red") == first
    assert find_word(tokens, "red", last=True) == second
    assert tokens.spans[first[0]][0] < tokens.spans[second[0]][0]
    with pytest.raises(UnknownWordError, match=r"occurs 2 times.*ask for 1 to 2"):
        find_word(tokens, "red", 3)


@pytest.mark.parametrize("phrase", ["ball", "red dog cat", "ca", ",", "!"])
def test_a_word_that_is_not_there_is_answered_with_those_that_are(phrase):
    with pytest.raises(UnknownWordError, match=r"\(a, red, cat, on, the, grass, and, Red, dog\)"):
        found(phrase)


def test_a_word_of_letters_has_all_of_them_and_the_space_before():
    tokens = tiny_tokenizer(40).encode("a fox on grass")
    places = find_word(tokens, "fox")
    assert [tokens.prompt[slice(*tokens.spans[n])] for n in places] == [" ", "f", "o", "x"]


def test_words_know_where_they_stand():
    words = words_of("  'Big' dogs -- run.")
    assert [(w.text, w.start, w.end) for w in words] == [
        ("Big", 3, 6),
        ("dogs", 8, 12),
        ("run", 16, 19),
    ]
