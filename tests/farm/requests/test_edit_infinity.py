import pytest
from pydantic import ValidationError

from farm.requests.edit_infinity import EditInfinityRequest

FIELDS = {"image": "a.png", "source_prompt": "a red cat", "target_prompt": "a blue cat"}


def request(**fields):
    return EditInfinityRequest.model_validate(FIELDS | fields)


def test_a_request_needs_a_picture_and_two_prompts():
    plain = request()
    assert plain.method == "edit_infinity"
    assert plain.mask is None
    assert plain.parameters.model_dump(exclude_none=True) == {"reference": False}
    assert EditInfinityRequest.model_validate_json(plain.model_dump_json()) == plain


def test_masks_may_be_painted_in_either_colour():
    assert request(mask="m.png", mask_edits="black").mask_edits == "black"
    with pytest.raises(ValidationError, match="white"):
        request(mask="m.png", mask_edits="red")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": {"infer_function": 1}}, "there is no target_word"),
        ({"parameters": {"infer_function": 2}}, "neither a mask nor a target_word"),
        ({"parameters": {"train_textembedding_iter": 0}}, "greater than or equal to 1"),
        ({"parameters": {"use_lora": "perhaps"}}, "valid boolean"),
        ({"parameters": {"lora_rank": 4}}, "Extra inputs"),
        ({"target_prompt": "a red cat"}, "nothing to edit"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        request(**fields)


def test_each_function_with_what_it_needs_is_taken():
    assert request(target_word="cat", parameters={"infer_function": 1})
    assert request(mask="m.png", parameters={"infer_function": 2})
    assert request(parameters={"infer_function": 0})
