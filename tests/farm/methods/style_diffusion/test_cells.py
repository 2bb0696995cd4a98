import pytest

from farm.errors import InvalidPromptError, UnknownWordError
from farm.methods.style_diffusion.cells import configure, plan_cells
from farm.methods.style_diffusion.config import scenes, tiny
from farm.requests import parse_request
from tests.farm.methods.style_diffusion.prompts import PieceTokenizer


def request(**fields):
    return parse_request(
        {"image": "a.png", "source_prompt": "a red cat", "target_prompt": "a blue cat"} | fields
    )


def planned(**fields):
    return plan_cells(PieceTokenizer(), request(**fields), tiny())


def test_targets_times_taus():
    cells = planned(
        parameters={
            "tau_v": [0.1, 0.2],
            "tau_c": [0.3, 0.4],
            "equalizer": {"blue": 2},
            "further_targets": [{"target_prompt": "a big red cat", "equalizer": {"big": 3}}],
        }
    )
    assert [(c.plan.target.prompt, c.config.tau_v, c.config.tau_c) for c in cells] == [
        (prompt, v, c)
        for prompt in ("a blue cat", "a big red cat")
        for v in (0.1, 0.2)
        for c in (0.3, 0.4)
    ]
    assert cells[0].facts["tau_v"] == 0.1
    assert cells[0].config.equalizer == (("blue", 2.0),)
    assert cells[4].config.equalizer == (("big", 3.0),)


def test_a_request_without_lists_is_one_edit():
    (cell,) = planned(target_word="blue")
    assert cell.depends["target_word"] == "blue"
    assert cell.depends["config"] == tiny().editing.model_dump(mode="json")


def test_each_target_has_the_editing_that_fits_its_words():
    further = [{"target_prompt": "a red dog"}]
    asked = request(parameters={"tau_v": 0.3, "further_targets": further})
    assert scenes().nouns is not None
    own, other = plan_cells(PieceTokenizer(), asked, scenes())
    assert own.config == scenes().editing.model_copy(update={"tau_v": 0.3})
    assert other.config == scenes().nouns.model_copy(update={"tau_v": 0.3})
    assert configure(asked, scenes()).editing == own.config
    asked = request(parameters={"restructure": False, "further_targets": further})
    assert {c.config for c in plan_cells(PieceTokenizer(), asked, scenes())} == {scenes().editing}


def test_what_is_said_of_words_is_not_handed_on_to_further_targets():
    words = {"source_words": ["red"], "target_words": ["blue"], "cross_windows": {"blue": 0.5}}
    further = {"target_prompt": "a red dog", "target_word": "dog"}
    own, other = planned(parameters={**words, "further_targets": [further]})
    assert own.config.target_words == ("blue",)
    assert other.config.target_words is None
    assert other.config.cross_windows == ()
    assert other.plan.blend_tokens[1].nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    ("further", "error", "says"),
    [
        ({"target_prompt": "a red dog", "target_word": "cat"}, UnknownWordError, "'cat'"),
        ({"target_prompt": "a " * 40}, InvalidPromptError, "tokens"),
        (
            {"target_prompt": "a big red cat", "edit_type": "replace"},
            InvalidPromptError,
            "edit_type 'refine' fits",
        ),
    ],
)
def test_every_target_is_checked_before_any_network_runs(further, error, says):
    class Strict(PieceTokenizer):
        def encode(self, prompt):
            if len(prompt.split()) > 14:
                raise InvalidPromptError("too many tokens")
            return super().encode(prompt)

    with pytest.raises(error, match=says):
        plan_cells(Strict(), request(parameters={"further_targets": [further]}), tiny())


def test_a_generated_source_learns_nothing():
    config = configure(request(image="generated:"), tiny()).inversion
    assert (config.generated, config.learned) == (True, "nothing")
    assert not configure(request(), tiny()).inversion.generated
