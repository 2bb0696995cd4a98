"""PAPER.md accounts for every number of the configuration."""

import farm.methods.style_diffusion as method
from farm.methods.style_diffusion import config
from tests.farm.methods.papers import Paper

PAPER = Paper(method)


def test_every_number_of_the_configuration_is_accounted_for():
    fields = set(config.InversionConfig.model_fields) | set(config.EditingConfig.model_fields)
    assert fields <= PAPER.named_in("Numbers")
