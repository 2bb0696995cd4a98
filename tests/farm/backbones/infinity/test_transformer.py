from dataclasses import replace

import pytest
import torch

from farm.backbones.infinity.cache import new_cache
from farm.backbones.infinity.config import released
from farm.backbones.infinity.quantiser import quantise, teacher_inputs
from farm.backbones.infinity.rope import rope_table, rotate
from farm.backbones.infinity.schedules import own_schedule
from farm.backbones.infinity.transformer import Infinity, PassOptions
from tests.tiny_infinity import CONFIG, SCHEDULE, text_rows, tiny_transformer

ROUNDING = 1e-5  # sums of a few dozen products of numbers near one, in single precision


@pytest.fixture(scope="module")
def model():
    return tiny_transformer()


@pytest.fixture(scope="module")
def inputs():
    features = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    return teacher_inputs(quantise(features, SCHEDULE), SCHEDULE)


@pytest.fixture(scope="module")
def text():
    return torch.stack([text_rows(5, 1), text_rows(5, 2)])


def test_scale_by_scale_with_a_cache_is_one_pass_over_all(model, inputs, text):
    with torch.no_grad():
        given = model.condition(text)
        whole, _ = model(given, inputs, SCHEDULE)
        cache = new_cache(SCHEDULE, CONFIG.depth)
        parts = [None, *inputs.split(SCHEDULE.lengths[1:], dim=1)]
        single = [
            model.next_scale(given, part, scale, SCHEDULE, cache)
            for scale, part in enumerate(parts)
        ]
    torch.testing.assert_close(torch.cat(single, 1), whole, rtol=0, atol=ROUNDING)


def test_a_scale_sees_itself_and_what_was_before(model, inputs, text):
    given = model.condition(text)
    before, _ = model(given, inputs, SCHEDULE)
    for scale in (1, 2):
        changed = inputs.clone()
        start = SCHEDULE.starts[scale]
        changed[:, start - 1] += 1  # inputs have no row for the first scale
        after, _ = model(given, changed, SCHEDULE)
        assert torch.equal(after[:, :start], before[:, :start])
        own = slice(start, start + SCHEDULE.lengths[scale])
        assert ((after[:, own] - before[:, own]).abs().amax(-1) > 1e-6).all()


def test_samples_of_a_batch_do_not_mix(model, inputs, text):
    with torch.no_grad():
        both, _ = model(model.condition(text), inputs, SCHEDULE)
        alone, _ = model(model.condition(text[1:]), inputs[1:], SCHEDULE)
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=ROUNDING)


def test_rows_that_do_not_count_change_nothing(model, inputs, text):
    filled = torch.cat([text, 50 * torch.ones(2, 3, 16)], dim=1)
    present = torch.arange(8).expand(2, -1) < 5
    with torch.no_grad():
        plain, _ = model(model.condition(text), inputs, SCHEDULE)
        masked, _ = model(model.condition(filled, present), inputs, SCHEDULE)
    torch.testing.assert_close(masked, plain, rtol=0, atol=ROUNDING)


def test_biases_are_what_may_be_dropped_and_no_more(inputs, text):
    """With those biases at zero, dropping them changes nothing; the query's own bias stays."""
    model = tiny_transformer()
    dropped = PassOptions(biases=False)
    with torch.no_grad():
        kept, _ = model(model.condition(text), inputs, SCHEDULE)
        without, _ = model(model.condition(text, biases=False), inputs, SCHEDULE, dropped)
        assert (kept - without).abs().max() > 1e-2
        for name, parameter in model.named_parameters():
            if name.endswith(("sa.q_bias", "v_bias")):
                parameter.zero_()
        zeroed, _ = model(model.condition(text), inputs, SCHEDULE)
    torch.testing.assert_close(zeroed, without, rtol=0, atol=ROUNDING)


def test_dropped_paths_are_gone_and_cross_attention_is_not(model, inputs, text):
    scales = torch.zeros(2, CONFIG.depth, 2)
    with torch.no_grad():
        given = model.condition(text)
        gone, _ = model(given, inputs, SCHEDULE, PassOptions(branch_scale=scales))
        ones, _ = model(given, inputs, SCHEDULE, PassOptions(branch_scale=scales + 1))
        plain, _ = model(given, inputs, SCHEDULE)
        other = model.condition(text.flip(0))
        text_alone = replace(given, text=other.text)
        moved, _ = model(text_alone, inputs, SCHEDULE, PassOptions(branch_scale=scales))
    assert torch.equal(ones, plain)
    assert (gone - plain).abs().max() > 1e-2
    assert (moved - gone).abs().max() > 1e-3


def test_attention_shares_of_all_rows_sum_to_one(model, inputs, text):
    watched = torch.eye(5).expand(2, -1, -1)
    with torch.no_grad():
        options = PassOptions(watched=watched)
        logits, shares = model(model.condition(text), inputs, SCHEDULE, options)
        plain, nothing = model(model.condition(text), inputs, SCHEDULE)
    assert shares.shape == (2, 5, SCHEDULE.num_tokens)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, SCHEDULE.num_tokens))
    assert torch.equal(logits, plain)
    assert nothing is None


def test_recomputing_gives_the_same_gradient(model, inputs, text):
    def gradient(recompute):
        leaf = text.clone().requires_grad_()
        options = PassOptions(recompute=recompute)
        logits, _ = model(model.condition(leaf), inputs, SCHEDULE, options)
        return torch.autograd.grad(logits.square().mean(), leaf)[0]

    assert torch.equal(gradient(True), gradient(False))
    assert all(p.grad is None for p in model.parameters())


def test_half_precision_blocks_are_near(inputs, text):
    model = tiny_transformer()
    with torch.no_grad():
        single, _ = model(model.condition(text), inputs, SCHEDULE)
        for block in model.blocks:
            for layer in block.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.to(torch.bfloat16)
        half, _ = model(model.condition(text), inputs, SCHEDULE)
    assert half.dtype == torch.float32
    # eight bits of mantissa, through two blocks
    assert (half - single).abs().max() < 0.1 * single.abs().max()


@pytest.mark.parametrize(
    ("size", "parameters", "keys"),
    [
        (released(2048, 32, 16, 32), 2_204_564_032, 694),
        (released(3584, 40, 28, 56), 8_375_791_824, 862),
        (released(768, 12, 8, 16), 125_148_800, 274),
    ],
    ids=["2B", "8B", "125M"],
)
def test_released_sizes(size, parameters, keys):
    with torch.device("meta"):
        model = Infinity(size)
    assert sum(p.numel() for p in model.parameters()) == parameters
    # released files have buffers of zeros besides: one in the pooling, two in each block
    assert len(model.state_dict()) == keys - 1 - 2 * size.depth


def test_positions_turn_pairs_and_keep_lengths():
    schedule = own_schedule([(1, 1), (3, 5)], cell=1, stride=8)
    table = rope_table(schedule, 8)
    x = torch.randn(1, 2, 16, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, table)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0]), "the first token is at the origin"


def test_products_depend_on_the_offset_alone():
    schedule = own_schedule([(1, 1), (6, 6)], cell=1, stride=8)
    table = rope_table(schedule, 8)[:, 1:].unflatten(1, (6, 6))
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 8, generator=generator) for _ in range(2))

    def product(one, other):
        turned = [rotate(v, table[:, r, c][:, None]) for v, (r, c) in ((query, one), (key, other))]
        return (turned[0] * turned[1]).sum().item()

    assert product((1, 2), (3, 1)) == pytest.approx(product((2, 4), (4, 3)), abs=1e-5)
    assert product((1, 2), (3, 1)) != pytest.approx(product((1, 2), (1, 4)), abs=1e-3)
