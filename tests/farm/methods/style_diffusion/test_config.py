import pytest
from pydantic import ValidationError

from farm.methods.style_diffusion.config import InversionConfig, paper, scenes, tiny
from farm.requests import StyleDiffusionParameters

GIVEN = {
    "num_steps": 7,
    "guidance_scale": 2.5,
    "inner_steps": 11,
    "learning_rate": 0.125,
    "attention_weight": 0.25,
    "value_form": "direct",
    "tau_v": 0.11,
    "tau_c": 0.12,
    "tau_s": 0.13,
    "tau_u": 0.14,
    "local_blend": None,
    "blend_threshold": 0.15,
    "blend_start": 0.16,
    "paste_back": None,  # switches are turned round, whichever way they are
    "source_words": ("dog",),
    "target_words": ("cat",),
    "reference": None,
}


def values(config):
    return config.inversion.model_dump() | config.editing.model_dump()


def test_every_parameter_of_a_request_is_listed_here():
    assert set(GIVEN) == set(StyleDiffusionParameters.model_fields)


@pytest.mark.parametrize("base", [paper(), scenes(), tiny()], ids=["paper", "scenes", "tiny"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_parameter_reaches_its_field_and_no_other(name, base):
    before = values(base)
    value = not before[name] if GIVEN[name] is None else GIVEN[name]
    assert before[name] != value
    changed = base.with_parameters(StyleDiffusionParameters(**{name: value}))
    assert values(changed) == before | {name: value}


def test_what_a_request_leaves_out_stays():
    for config in (paper(), scenes(), tiny()):
        assert config.with_parameters(StyleDiffusionParameters()) == config


@pytest.mark.parametrize(("num_steps", "total"), [(30, 1015), (50, 1071)])
def test_budgets_of_the_published_program(num_steps, total):
    config = InversionConfig(num_steps=num_steps)
    assert [config.budget(n) for n in range(6)] == [100, 91, 82, 75, 68, 61]
    assert config.total_budget == total


def test_learning_rates_stay_positive_and_are_the_programs_up_to_its_divisor():
    assert InversionConfig(num_steps=50).learning_rate_at(49) == pytest.approx(0.0051)
    assert InversionConfig(num_steps=200).learning_rate_at(199) == pytest.approx(0.01 / 200)


def test_a_misspelt_field_is_an_error():
    with pytest.raises(ValidationError, match="inner_step"):
        InversionConfig(inner_step=3)  # pyright: ignore[reportCallIssue]
