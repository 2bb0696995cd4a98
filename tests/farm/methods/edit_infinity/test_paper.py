"""PAPER.md accounts for every number of the configuration."""

import farm.methods.edit_infinity as method
from farm.methods.edit_infinity import config
from tests.farm.methods.papers import Paper

PAPER = Paper(method)


def test_every_number_of_the_configuration_is_accounted_for():
    sections = (
        config.OptimiserConfig,
        config.NoiseConfig,
        config.PromptConfig,
        config.LoraConfig,
        config.EditingConfig,
        config.EditInfinityConfig,
    )
    parts = {"optimiser", "noise", "prompt", "lora", "editing"}
    fields = {name for section in sections for name in section.model_fields} - parts
    assert fields <= PAPER.named_in("Numbers")
