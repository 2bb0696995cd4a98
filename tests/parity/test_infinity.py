"""Infinity and EditInfinity against vectors of the public programs (`--golden DIR`, README there).

Folders, sizes and files are found in the set. The last test fails if an array was not read.
Tolerances are those of spec §10; each is commented where it is used. Bits are compared exactly.
"""

import pytest

from tests.parity.infinity_cases.common import found_in
from tests.parity.infinity_cases.editing import (  # noqa: F401 - collected here
    test_attention_of_a_word,
    test_first_gradient_of_the_adapters,
    test_gradient_of_the_learned_prompt,
    test_logits_on_both_bias_settings,
    test_logits_with_adapters,
    test_replacing_all_codes_gives_the_source_and_teacher_forced_logits,
    test_training_of_the_adapters,
    test_training_of_the_learned_prompt,
    test_weights_of_a_mask,
)
from tests.parity.infinity_cases.large import (  # noqa: F401 - collected here
    large_source,
    test_large_attention_and_automatic_mask,
    test_large_edit,
    test_large_edit_is_decided_clearly,
    test_large_mask_and_weight,
    test_large_source,
)
from tests.parity.infinity_cases.model import (  # noqa: F401 - collected here
    test_cells_and_tokens_are_inverse,
    test_decoder,
    test_encoder_and_bits,
    test_flips_have_the_strength_that_was_drawn,
    test_greedy_generation,
    test_inputs_and_targets_of_teacher_forcing,
    test_packing_is_numpys,
    test_positions_of_other_ratios,
    test_positions_of_the_folder,
    test_sampler,
    test_self_correction,
    test_sizes_are_read_off_the_state_dicts,
    test_teacher_forced_logits_and_losses,
    test_text_conditioning,
    test_texts_of_different_length_in_one_batch,
    test_the_set_says_the_schedules_that_our_tables_have,
)
from tests.parity.infinity_set import set_of


def pytest_generate_tests(metafunc):
    """One test per folder, editing file, table of positions and mask: whatever is there."""
    root = set_of(metafunc.config.getoption("--golden"))
    found = found_in(root)
    if "folder" in metafunc.fixturenames:
        metafunc.parametrize("folder", found["folders"], ids=lambda f: f.path.name)
    if "edits" in metafunc.fixturenames:
        metafunc.parametrize("edits", found["edits"], ids=edits_name)
    if "large" in metafunc.fixturenames:
        metafunc.parametrize("large", found["large"], ids=edits_name)
    if "table" in metafunc.fixturenames:
        metafunc.parametrize("table", found["tables"], ids=lambda v: v.path.stem)
    if "mask_name" in metafunc.fixturenames:
        names = {name.split("/")[0] for name in found["masks"].names}
        metafunc.parametrize("mask_name", sorted(names))


def edits_name(case):
    folder, biases, _ = case
    return f"{folder.path.name}-{'bias' if biases else 'nobias'}"


@pytest.fixture
def masks(request):
    return found_in(set_of(request.config.getoption("--golden")))["masks"]


def test_every_array_was_read(request):
    """Must be the last of this file; judged only where the whole file runs."""
    here = [item for item in request.session.items if item.path == request.node.path]
    names = {item.originalname for item in here}
    module = request.node.getparent(pytest.Module).obj
    if names != {name for name in vars(module) if name.startswith("test_")}:
        pytest.skip("only some tests of this file were selected")
    root = set_of(request.config.getoption("--golden"))
    found = found_in(root)
    files = [v for folder in found["folders"] for v in folder.files]
    files += [*found["tables"], found["masks"]]
    unread = [f"{v.path.relative_to(root)}: {name}" for v in files for name in v.unread]
    assert not unread
    known = {v.path for v in files}
    assert set(root.rglob("*.npz")) == known, "a file of the set that no test knows"
