import pytest
import torch

from farm.errors import InvalidPromptError, UnknownWordError
from farm.methods.style_diffusion.mappers import equalizer, refinement_map, replacement_map
from tests.farm.methods.style_diffusion.prompts import SIZE, tokens_of

PAIRS = [
    ("a cat by a mirror", "a dog by a mirror"),
    ("a cat on sand", "a hippopotamus on sand"),  # one piece becomes three
    ("a hippopotamus on sand", "a cat on snow"),
    ("kittens and puppies", "cats and elephants"),
    ("cat", "hippopotamus"),
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_replacement_loses_no_attention(source, target):
    """Whatever a source token was looked at, its tokens' weights hand on as a whole."""
    found = replacement_map(*tokens_of(source, target))
    torch.testing.assert_close(found.mapper.sum(1), torch.ones(SIZE))
    assert torch.equal(found.alpha, torch.ones(SIZE))


def test_replacement_keeps_the_shift_after_a_longer_word():
    source, target = tokens_of("a cat on sand", "a hippopotamus on sand")
    mapper = replacement_map(source, target).mapper
    assert mapper[2, 2:5].tolist() == pytest.approx([1 / 3] * 3)  # cat: hipp, opot, amus
    assert mapper[3, 5] == 1  # on: on
    assert mapper[4, 6] == 1  # sand: sand
    assert mapper[5, 7] == 1  # end: end


def test_replacement_as_released_forgets_the_shift():
    source, target = tokens_of("a cat on sand", "a hippopotamus on sand")
    mapper = replacement_map(source, target, reference=True).mapper
    assert mapper[2, 2:5].tolist() == pytest.approx([1 / 3] * 3)
    for column in range(5, SIZE):
        assert torch.equal(mapper[:, column], torch.eye(SIZE)[column])
    assert mapper[3].sum() == 0  # "on" is lost


def test_both_forms_agree_where_nothing_shifts():
    pair = tokens_of("a cat by a mirror", "a dog by a mirror")
    released, ours = replacement_map(*pair, reference=True), replacement_map(*pair)
    assert torch.equal(released.mapper, torch.eye(SIZE))
    assert torch.equal(ours.mapper, torch.eye(SIZE))


def test_replacement_with_other_numbers_of_words_says_both():
    pair = tokens_of("a big dog by day", "a dog at night in rain")
    with pytest.raises(InvalidPromptError) as caught:
        replacement_map(*pair)
    assert "'a big dog by day' has 5 words and 'a dog at night in rain' has 6" in str(caught.value)
    assert "('big', 'by', 'day' became 'at', 'night', 'in', 'rain')" in str(caught.value)
    assert "edit_type 'refine' fits" in str(caught.value)


def test_refinement_keeps_equal_words_and_frees_new_ones():
    source, target = tokens_of("a dog", "a big dog")
    found = refinement_map(source, target)
    assert found.alpha[:5].tolist() == [1, 1, 0, 1, 1]  # start a big dog end
    assert found.mapper[:, :5].argmax(0).tolist() == [0, 1, 0, 2, 3]
    assert found.mapper[:, 2].sum() == 0
    # padding of the target (5…) is padding of the source (4…)
    assert found.mapper[:, 5:].argmax(0).tolist() == list(range(4, SIZE - 1))


def test_refinement_to_fewer_words_gives_padding_the_source_s_padding():
    source, target = tokens_of("a big red dog", "a dog")
    ours, released = refinement_map(source, target), refinement_map(source, target, reference=True)
    assert ours.mapper[:, 4:].argmax(0).min() == 6  # the source's first padding
    assert released.mapper[:, 4].argmax() == 4  # "dog"
    assert torch.equal(ours.mapper.sum(0), torch.ones(SIZE))


def test_refinement_of_repeated_words_prefers_gaps_in_the_source():
    """Where either of two words may match, the tie rule decides: the source's later one does."""
    found = refinement_map(*tokens_of("red dog", "dog red"))
    assert found.alpha[:4].tolist() == [1, 1, 0, 1]
    assert found.mapper[:, 1].argmax() == 2
    assert refinement_map(*tokens_of("cat", "cat cat")).alpha[:4].tolist() == [1, 1, 0, 1]


def test_equalizer_weighs_all_occurrences():
    (target,) = tokens_of("a red cat and a red dog")
    found = equalizer(target, [("red", 2.0), ("dog", 0.5)])
    expected = torch.ones(SIZE)
    expected[[2, 6]] = 2
    expected[7] = 0.5
    assert torch.equal(found, expected)
    with pytest.raises(UnknownWordError, match="'blue'"):
        equalizer(target, [("blue", 2.0)])
