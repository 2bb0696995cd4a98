"""StyleDiffusion against the vectors of the released program (`--golden DIR`, README there).

Every array of the set is compared with something, within the README's tolerances; the last test
lists what was not. Sizes, prompts, edits and steps are read from the set.
"""

import pytest

from tests.parity import metric_cases
from tests.parity.golden_set import FullSet, GoldenSet
from tests.parity.style_diffusion_cases import (
    control_cases,
    editing_cases,
    sampling_cases,
    training_cases,
    words_cases,
)


@pytest.fixture(scope="module")
def stored(golden) -> GoldenSet:
    return GoldenSet(golden)


# Sampling


def test_sizes(stored):
    sampling_cases.check_sizes(stored)


def test_schedule(stored):
    sampling_cases.check_schedule(stored)


def test_ddim_latents(stored):
    sampling_cases.check_ddim_latents(stored)


def test_inversion_maps(stored):
    sampling_cases.check_inversion_maps(stored)


def test_map_statistics_of_every_step(stored):
    sampling_cases.check_map_statistics(stored)


def test_image_tokens(stored):
    sampling_cases.check_image_tokens(stored)


def test_loading(stored):
    sampling_cases.check_loading(stored)


# Training


def test_mapping_network(stored):
    training_cases.check_mapping_network(stored)


def test_budgets_rates_and_thresholds(stored):
    training_cases.check_budgets(stored)


def test_first_iteration(stored):
    training_cases.check_first_iteration(stored)


def test_probe_losses_and_gradients(stored):
    training_cases.check_probes(stored)


def test_training_follows_the_published_run(stored):
    training_cases.check_training(stored)


# Words


def test_words_become_the_stored_tokens(stored):
    words_cases.check_words(stored)


def test_replacement_maps(stored):
    words_cases.check_replacement(stored)


def test_refinement_maps(stored):
    words_cases.check_refinement(stored)


def test_equalizers(stored):
    words_cases.check_equalizers(stored)


def test_windows(stored):
    words_cases.check_windows(stored)


def test_word_windows(stored):
    words_cases.check_word_windows(stored)


# Control


def test_cross_maps_of_each_controller(stored):
    control_cases.check_cross_control(stored)


def test_self_maps_of_each_controller(stored):
    control_cases.check_self_control(stored)


def test_local_blend(stored):
    control_cases.check_local_blend(stored)


# Edits


def test_edits(stored):
    editing_cases.check_edits(stored)


def test_edit_with_the_block_layout_of_stable_diffusion(stored):
    editing_cases.check_block_layout(FullSet(stored), stored)


# Metrics


@pytest.mark.parametrize("case", metric_cases.CASES)
def test_metrics(stored, case):
    getattr(metric_cases, case)(stored.golden, stored.consumed.names)


# The whole set


def test_every_array_was_compared(stored):
    """After all tests above; alone it fails, as it should."""
    assert stored.consumed.left() == []
