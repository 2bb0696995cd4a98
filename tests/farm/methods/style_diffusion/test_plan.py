import pytest
import torch

from farm.errors import InvalidPromptError, UnknownWordError
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.mappers import refinement_map, replacement_map
from farm.methods.style_diffusion.plan import plan_edit, plan_prompts
from tests.farm.methods.style_diffusion.prompts import SIZE, PieceTokenizer, tokens_of

CONFIG = EditingConfig()


def marked(plan):
    return [row.nonzero().flatten().tolist() for row in plan.blend_tokens]


def test_the_blend_follows_the_words_that_change():
    plan = plan_edit(*tokens_of("a red cat on sand", "a blue puppy on sand"), CONFIG, 4)
    assert marked(plan) == [[2, 3], [2, 3, 4]]


def test_a_changed_word_is_followed_where_it_changed_alone():
    plan = plan_edit(*tokens_of("a red cat and a red dog", "a red cat and a blue dog"), CONFIG, 4)
    assert marked(plan) == [[6], [6]]


def test_added_words_have_no_counterpart():
    plan = plan_edit(*tokens_of("a dog", "a big dog"), CONFIG, 4)
    assert marked(plan) == [[], [2]]


def test_the_target_word_says_what_is_new():
    pair = tokens_of("a red cat", "a blue dog")
    assert marked(plan_edit(*pair, CONFIG, 4, target_word="dog")) == [[2, 3], [3]]
    chosen = EditingConfig(source_words=("cat",), target_words=("blue",))
    assert marked(plan_edit(*pair, chosen, 4, target_word="dog")) == [[3], [2]]


@pytest.mark.parametrize(
    ("config", "target_word", "message"),
    [
        (CONFIG, "red", "'red' is not in the prompt 'a blue dog'"),
        (EditingConfig(source_words=("dog",)), None, "'dog' is not in the prompt 'a red cat'"),
        (EditingConfig(target_words=("cat",)), None, "'cat' is not in the prompt 'a blue dog'"),
        (EditingConfig(equalizer=(("cat", 2.0),)), None, "'cat' is not in"),
        (EditingConfig(cross_windows=(("cat", (0.0, 1.0)),)), None, "'cat' is not in"),
        (EditingConfig(source_subtract=("dog",)), None, "'dog' is not in the prompt 'a red cat'"),
        (EditingConfig(target_subtract=("red",)), None, "'red' is not in the prompt 'a blue dog'"),
    ],
)
def test_a_word_that_is_not_there_is_an_error(config, target_word, message):
    with pytest.raises(UnknownWordError, match=message):
        plan_edit(*tokens_of("a red cat", "a blue dog"), config, 4, target_word)


def test_nothing_to_follow_is_an_error_only_for_the_blend():
    pair = tokens_of("a red cat", "a red cat")
    with pytest.raises(InvalidPromptError, match="local_blend"):
        plan_edit(*pair, CONFIG, 4)
    plan = plan_edit(*pair, EditingConfig(local_blend=False), 4)
    assert torch.equal(plan.token_map.mapper, torch.eye(SIZE))


def test_words_that_are_weighed_are_followed_where_none_changes():
    pair = tokens_of("a red cat", "a red cat")
    plan = plan_edit(*pair, EditingConfig(equalizer=(("red", 3.0),)), 4)
    assert marked(plan) == [[2], [2]]
    changed = plan_edit(
        *tokens_of("a red cat", "a red dog"), EditingConfig(equalizer=(("red", 3.0),)), 4
    )
    assert marked(changed) == [[3], [3]]


def test_words_to_subtract_are_marked_apart():
    pair = tokens_of("a red cat", "a blue dog")
    config = EditingConfig(source_subtract=("red",), target_subtract=("a", "dog"))
    plan = plan_edit(*pair, config, 4)
    assert [row.nonzero().flatten().tolist() for row in plan.subtract_tokens] == [[2], [1, 3]]
    assert torch.equal(plan.word_sets, torch.stack([plan.blend_tokens, plan.subtract_tokens]))
    assert plan_edit(*pair, CONFIG, 4).word_sets.shape == (1, 2, SIZE)


def test_words_that_stay_shield_and_function_words_do_nothing():
    pair = tokens_of("a red cat in snow", "a red cat on sand")
    config = EditingConfig(shield_kept=True)
    plan = plan_edit(*pair, config, 4)
    assert marked(plan) == [[5], [5]]  # snow and sand; not in and on
    kept = [[row.nonzero().flatten().tolist() for row in marks] for marks in plan.kept_tokens]
    assert kept == [[[2], [2]], [[3], [3]]]  # red and cat; not a
    assert torch.equal(plan.word_sets, torch.stack([plan.blend_tokens, *plan.kept_tokens]))
    assert marked(plan_edit(*pair, EditingConfig(), 4)) == [[4, 5], [4, 5]]
    assert plan_edit(*pair, EditingConfig(shield_kept=True, local_blend=False), 4).kept_tokens == ()


def test_a_function_word_is_followed_where_nothing_else_changes():
    pair = tokens_of("a cat in snow", "a cat on snow")
    assert marked(plan_edit(*pair, EditingConfig(shield_kept=True), 4)) == [[3], [3]]


def test_the_edit_type_follows_from_the_numbers_of_words():
    replaced = tokens_of("a cat on sand", "a hippopotamus on sand")
    refined = tokens_of("a cat", "a big cat")
    for (source, target), build in ((replaced, replacement_map), (refined, refinement_map)):
        plan = plan_edit(source, target, CONFIG, 4)
        assert torch.equal(plan.token_map.mapper, build(source, target).mapper)
        assert torch.equal(plan.token_map.alpha, build(source, target).alpha)


def test_an_edit_type_that_is_asked_for_is_used():
    pair = tokens_of("a cat on sand", "a dog on sand")
    plan = plan_edit(*pair, EditingConfig(edit_type="refine"), 4)
    assert plan.token_map.alpha.tolist()[:4] == [1, 1, 0, 1]
    with pytest.raises(InvalidPromptError, match="refine"):
        plan_edit(*tokens_of("a cat", "a big cat"), EditingConfig(edit_type="replace"), 4)


def test_reference_reaches_the_mapper():
    pair = tokens_of("a cat on sand", "a hippopotamus on sand")
    plan = plan_edit(*pair, EditingConfig(reference=True), 4)
    expected = replacement_map(*pair, reference=True)
    assert torch.equal(plan.token_map.mapper, expected.mapper)


def test_windows_and_weights_of_words():
    config = EditingConfig(
        tau_c=(0.0, 0.5), cross_windows=(("dog", (0.25, 1.0)),), equalizer=(("dog", 3.0),)
    )
    plan = plan_prompts(PieceTokenizer(), "a cat", "a dog", config, 3)
    assert plan.cross_alpha[:, 1].tolist() == [1, 1, 0, 0]
    assert plan.cross_alpha[:, 2].tolist() == [0, 1, 1, 1]
    assert plan.equalizer[2] == 3
