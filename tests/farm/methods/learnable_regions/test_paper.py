"""PAPER.md accounts for every number of the configuration."""

import farm.methods.learnable_regions as method
from farm.methods.learnable_regions import config
from tests.farm.methods.papers import Paper

PAPER = Paper(method)


def numbers_of(kind):
    """Fields of a configuration and of those inside it."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, config.BaseModel):
            yield from () if inner is config.Quirks else numbers_of(inner)
        else:
            yield name


def test_every_number_of_the_configuration_is_accounted_for():
    assert set(numbers_of(config.LearnableRegionsConfig)) <= PAPER.named_in("Numbers")


def test_every_quirk_is_in_the_table():
    assert set(config.Quirks.model_fields) <= PAPER.named_in("Quirks")
