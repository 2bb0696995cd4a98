import pytest
from pydantic import ValidationError

from farm.methods.style_diffusion.config import InversionConfig, paper, scenes, tiny
from farm.requests import StyleDiffusionParameters

GIVEN = {
    "num_steps": 7,
    "guidance_scale": 2.5,
    "learned": "null_text",
    "training": "forced",
    "inner_steps": 11,
    "forced_steps": 12,
    "polish_steps": 13,
    "context_steps": 14,
    "learning_rate": 0.125,
    "attention_weight": 0.25,
    "value_form": "direct",
    "tau_v": 0.11,
    "tau_c": 0.12,
    "tau_s": 0.13,
    "tau_u": 0.14,
    "edit_type": "refine",
    "equalizer": {"dog": 2.0, "big": 0.5},
    "cross_windows": {"dog": 0.25, "big": {"begin": 0.5, "end": 0.75}},
    "local_blend": None,
    "blend_threshold": 0.15,
    "blend_pool": 5,
    "blend_grow": 3,
    "blend_start": 0.16,
    "fresh_noise": 0.21,
    "paste_threshold": 0.19,
    "paste_back": None,  # switches are turned round, whichever way they are
    "source_words": ("dog",),
    "target_words": ("cat",),
    "source_subtract": ("sand",),
    "target_subtract": ("snow",),
    "subtract_threshold": 0.17,
    "shield_kept": None,
    "shield_threshold": 0.18,
    "attention_map": None,
    "reference": None,
}
READ_AS = {
    "equalizer": (("dog", 2.0), ("big", 0.5)),
    "cross_windows": (("dog", 0.25), ("big", (0.5, 0.75))),
}
CHOOSING = {"further_targets", "restructure"}  # see test_cells


def values(config):
    return config.inversion.model_dump() | config.editing.model_dump()


def test_every_parameter_of_a_request_is_listed_here():
    assert {*GIVEN, *CHOOSING} == set(StyleDiffusionParameters.model_fields)


@pytest.mark.parametrize("base", [paper(), scenes(), tiny()], ids=["paper", "scenes", "tiny"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_parameter_reaches_its_field_and_no_other(name, base):
    before = values(base)
    value = not before[name] if GIVEN[name] is None else GIVEN[name]
    parameters = StyleDiffusionParameters(**{name: value})
    expected = READ_AS.get(name, value)
    assert before[name] != expected
    assert values(base.with_parameters(parameters)) == before | {name: expected}
    assert base.grid(parameters) == [base.with_parameters(parameters).editing]


def test_a_parameter_counts_where_nouns_change_too():
    asked = scenes().with_parameters(StyleDiffusionParameters(tau_s=0.25))
    chosen = asked.for_prompts("a ring", "a cross")
    assert chosen.editing.tau_s == 0.25
    assert chosen.editing.blend_grow == scenes().for_prompts("a ring", "a cross").editing.blend_grow


def test_prompts_choose_the_editing():
    config = scenes()
    assert config.nouns is not None
    assert config.for_prompts("a red ring", "a blue ring").editing == config.editing
    assert config.for_prompts("a red ring", "a red cross").editing == config.nouns
    assert config.for_prompts("a red ring", "a red cross", False).editing == config.editing
    assert config.for_prompts("a red ring", "a blue ring", True).editing == config.nouns
    assert paper().for_prompts("a red ring", "a red cross").editing == paper().editing


def test_what_a_request_leaves_out_stays():
    for config in (paper(), scenes(), tiny()):
        assert config.with_parameters(StyleDiffusionParameters()) == config


def test_a_window_may_begin_later():
    window = {"begin": 0.25, "end": 0.5}
    parameters = StyleDiffusionParameters(tau_c=window, tau_s=(0.1, window))
    assert tiny().with_parameters(parameters).editing.tau_c == (0.25, 0.5)
    assert [c.tau_s for c in tiny().grid(parameters)] == [0.1, (0.25, 0.5)]


def test_a_grid_has_every_combination_and_begins_with_the_first():
    parameters = StyleDiffusionParameters(tau_v=(0.1, 0.2), tau_s=(0.3, 0.4, 0.5), tau_u=0.6)
    grid = tiny().grid(parameters)
    assert [(c.tau_v, c.tau_s) for c in grid] == [
        (v, s) for v in (0.1, 0.2) for s in (0.3, 0.4, 0.5)
    ]
    assert {c.tau_u for c in grid} == {0.6}
    assert grid[0] == tiny().with_parameters(parameters).editing


@pytest.mark.parametrize(("num_steps", "total"), [(30, 1015), (50, 1071)])
def test_budgets_of_the_published_program(num_steps, total):
    config = InversionConfig(num_steps=num_steps)
    assert [config.budget(n) for n in range(6)] == [100, 91, 82, 75, 68, 61]
    assert config.total_budget == total


def test_budgets_of_each_way_to_learn():
    base = InversionConfig(num_steps=4, inner_steps=6, forced_steps=3, polish_steps=5)
    assert [base.chain_budget(n) for n in range(4)] == [6, 6, 5, 5]
    polish = base.model_copy(update={"training": "forced_polish"})
    assert [polish.chain_budget(n) for n in range(4)] == [5, 5, 5, 5]
    assert polish.total_budget == 4 * 3 + 20
    assert base.model_copy(update={"training": "forced"}).total_budget == 4 * 3
    for learned in ("null_text", "text"):
        context = base.model_copy(update={"learned": learned})
        assert [context.chain_budget(n) for n in range(4)] == [10] * 4
    assert base.model_copy(update={"learned": "nothing"}).total_budget == 0


def test_learning_rates_stay_positive_and_are_the_programs_up_to_its_divisor():
    assert InversionConfig(num_steps=50).learning_rate_at(49) == pytest.approx(0.0051)
    assert InversionConfig(num_steps=200).learning_rate_at(199) == pytest.approx(0.01 / 200)


def test_a_misspelt_field_is_an_error():
    with pytest.raises(ValidationError, match="inner_step"):
        InversionConfig(inner_step=3)  # pyright: ignore[reportCallIssue]
