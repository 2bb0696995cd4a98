import pytest

from farm.errors import InvalidPromptError, InvalidRequestError, ModelSetError
from farm.methods.learnable_regions.config import Quirks, reference, scenes
from farm.methods.learnable_regions.plan import check_config, plan_prompts, region_spec
from tests.farm.methods.learnable_regions.runs import CONFIG, changed
from tests.tiny import TOKENS, tiny_spec, tiny_tokenizer
from tests.tiny_regions import tiny_region_spec


def ids(prompt):
    return tiny_tokenizer().encode(prompt).ids


def plan(source="a red cat", target="a dog", config=CONFIG, **given):
    return plan_prompts(tiny_tokenizer(), source, target, config, **given)


def test_prompts_stand_in_the_template():
    found = plan()
    assert found.source == ids("a picture of a red cat")
    assert found.target == ids("a picture of a dog")
    assert found.empty == ids("")
    assert found.cut == {}


def test_a_bare_caption_does_not():
    """Q9: so the direction holds the template, too."""
    config = changed(analysis__quirks=Quirks(bare_caption=True).model_dump())
    found = plan(config=config)
    assert found.source == ids("a red cat")
    assert found.target == ids("a picture of a dog")


def test_a_slash_is_a_letter_like_others():
    assert plan(target="cat/dog").target == ids("a picture of cat/dog")


LONG = "the red ball on the green square with the cat"


def test_long_prompts_are_refused():
    with pytest.raises(InvalidPromptError, match=f"takes {TOKENS - 2}"):
        plan(target=LONG)


def test_long_prompts_are_shortened_only_where_asked_and_it_is_said():
    config = changed(analysis__template="{}")
    found = plan(target=LONG, config=config, long_prompt="truncate")
    kept = " ".join(LONG.split()[: TOKENS - 2])
    assert found.target == ids(kept)
    assert found.cut == {"target_prompt": kept}
    assert found.source == ids("a red cat")


def test_the_template_counts():
    found = plan(target=LONG, long_prompt="truncate")
    assert found.cut["target_prompt"].split() == LONG.split()[: TOKENS - 2 - 3]


def test_two_thousand_characters():
    found = plan(
        target="cat " * 500, long_prompt="truncate", config=changed(analysis__template="{}")
    )
    assert found.cut["target_prompt"].split() == ["cat"] * (TOKENS - 2)


def test_a_template_without_room_is_refused():
    config = changed(analysis__template="a picture of the red square on {}")
    with pytest.raises(InvalidPromptError, match="not one word"):
        plan(config=config, long_prompt="truncate")


# Numbers


def test_the_default_configurations_fit():
    check_config(CONFIG, tiny_region_spec())
    full = tiny_region_spec()
    assert full.regions is not None
    big = full.regions.model_copy(update={"dino_size": 256, "dino_patch": 8})
    check_config(reference(), full.model_copy(update={"regions": big}))
    small = full.regions.model_copy(update={"dino_size": 64, "dino_patch": 4})
    check_config(scenes(), full.model_copy(update={"regions": small}))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"search__anchors__max_window_size": 4.5}, r"max_window_size is 4\.5.*8x8.*at most 4"),
        ({"search__anchors__aspect_ratios": (4.5,)}, r"along the longer side.*at most 1\.88"),
        ({"search__anchors__point_number": 65}, "point_number is 65.*at most 64"),
        (
            {"search__anchors__window_step": 1e-3, "search__anchors__point_number": 8},
            r"8 anchors with [\d,]+ sizes each are [\d,]+ regions, at most 4,096",
        ),
        ({"search__anchors__window_step": 5e-324}, "sizes each .* larger window_step"),
        ({"search__preview_steps": 501}, "preview_steps is 501.*at most 500"),
        ({"selection__rungs": ((2, 3), (1, 501))}, "num_steps is 501.*at most 500"),
        ({"selection__rungs": ((1, 3), (2, 4))}, r"rungs keep \[1, 2\]"),
        ({"selection__rungs": ()}, "rungs is empty"),
    ],
)
def test_numbers_that_the_model_has_no_room_for(places, message):
    with pytest.raises(InvalidRequestError, match=message):
        check_config(changed(**places), tiny_region_spec())


def test_a_set_without_the_networks_is_refused():
    with pytest.raises(ModelSetError, match="'tiny' has no DINO and no inpainting"):
        region_spec(tiny_spec())
