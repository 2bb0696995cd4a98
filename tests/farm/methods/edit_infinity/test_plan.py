import pytest

from farm.errors import InvalidPromptError, InvalidRequestError, UnknownWordError
from farm.methods.edit_infinity.config import EditInfinityConfig
from farm.methods.edit_infinity.plan import (
    ATTENTION,
    CODES,
    LORA,
    PROMPT,
    missing_stage,
    must_exist,
    stage_depends,
)
from tests.farm.methods.edit_infinity.runs import SOURCE, TARGET, planned, small


def pieces(tokens):
    return [tokens.prompt[start:end].strip() for start, end in tokens.spans]


def test_the_three_cases_and_the_map():
    assert planned(word=None).region == "whole"
    assert planned(word=None, mask=True).region == "mask"
    assert planned().region == "word"
    assert planned(mask=True).region == "mask", "a mask that is given needs no word"
    assert planned(small(infer_function=0)).region == "whole"
    assert planned(small(infer_function=1), mask=True).region == "attention"


def test_the_target_word_is_one_of_the_source_prompt():
    plan = planned()
    assert [pieces(plan.source)[n] for n in plan.span] == ["cat"]
    with pytest.raises(UnknownWordError, match=r"'blue' is not in the source prompt"):
        planned(word="blue")


def test_a_function_without_what_it_needs_is_refused():
    with pytest.raises(InvalidRequestError, match=r"infer_function is 1.*no target_word"):
        planned(small(infer_function=1), word=None)
    with pytest.raises(InvalidRequestError, match="neither a mask nor a target_word"):
        planned(small(infer_function=2), word=None)


def test_the_instruction_follows_where_learned_rows_will():
    plan = planned()
    assert plan.training.prompt == f"{SOURCE} style"
    assert plan.target.prompt == f"{TARGET} style"
    assert plan.source.prompt == SOURCE, "the attention map is the plain prompt's"
    assert planned(small(use_concat_embedding=False)).target.prompt == TARGET


def test_texts_and_learned_rows_fit_the_model_or_are_refused():
    long = " ".join(["cat"] * 21)  # and style, the end token, two learned rows: 25 of 24
    with pytest.raises(InvalidPromptError, match=r"23 tokens and 2 learned rows.*by 1 tokens"):
        planned(word=None, source=long)
    with pytest.raises(InvalidPromptError, match="25 in all"):
        planned(word=None, target=long)
    planned(small(use_concat_embedding=False), word=None, target=long)


@pytest.mark.parametrize(
    ("config", "stages"),
    [
        ({}, [CODES, PROMPT, LORA, ATTENTION]),
        ({"infer_function": 0}, [CODES, PROMPT, LORA]),
        ({"infer_function": 1}, [CODES, ATTENTION]),
        ({"use_lora": False, "train_lora": False}, [CODES, PROMPT, ATTENTION]),
        ({"use_lora": False}, [CODES, PROMPT, LORA, ATTENTION]),
        (
            {
                "use_concat_embedding": False,
                "train_textembedding": False,
                "use_textembedding": False,
            },
            [CODES, LORA, ATTENTION],
        ),
        (
            {"use_concat_embedding": False, "train_textembedding": False},
            [CODES, PROMPT, LORA, ATTENTION],
        ),
    ],
)
def test_stages_that_are_trained_or_used_are_made(config, stages):
    assert list(planned(small(**config)).makes) == stages


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_embedding_iter": 1}, "use_embedding_iter is 1.*iterations 2, 3"),
        ({"use_textembedding_iter": 30}, "use_textembedding_iter is 30.*iterations 2, 3"),
        ({"use_lora_iter": 5, "train_lora_iter": 4}, "use_lora_iter is 5.*iterations 2, 4"),
    ],
)
def test_an_iteration_that_will_not_exist_is_an_early_error(config, message):
    with pytest.raises(InvalidRequestError, match=message):
        planned(small(**config))


def test_an_iteration_of_a_training_that_is_switched_off_is_checked_later():
    config = small(train_lora=False, use_lora_iter=50)
    assert must_exist(planned(config), config) == (LORA,)
    config = small(train_textembedding=False)
    assert must_exist(planned(config), config) == (PROMPT,)
    assert must_exist(planned(), small()) == ()
    message = missing_stage(PROMPT, {10: True, 20: False, 30: True}, config)
    assert "train_textembedding is off and train_textembedding_iter 3" in message
    assert "there are: 10, 30" in message


def test_stages_depend_on_what_determines_them_and_on_no_target():
    base = stage_depends(planned(), small())
    assert stage_depends(planned(target="the dog"), small()) == base
    assert base[CODES] == {}
    other = stage_depends(planned(word="grass"), small())
    assert {n for n in base if base[n] != other[n]} == {ATTENTION}
    off = small(train_lora=False)
    assert stage_depends(planned(off), off) == base, (
        "whether it is there does not change what it is"
    )
    changes = {
        "lora_r": {LORA},
        "prompt_rows": {PROMPT},
        "attention_bias": {PROMPT, LORA, ATTENTION},
        "save_every": {PROMPT, LORA},
    }
    for name, changed in changes.items():
        config = small(**{name: False if name == "attention_bias" else 3})
        found = stage_depends(planned(config), config)
        assert {n for n in base if base[n] != found[n]} == changed, name


def test_a_plan_of_defaults_needs_the_published_rows():
    config = EditInfinityConfig()
    assert config.prompt.prompt_rows == 20
    with pytest.raises(InvalidPromptError, match="20 learned rows"):
        planned(config)
