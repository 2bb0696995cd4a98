import pytest
import torch

from farm.backbones.infinity.generation import (
    Guidance,
    Keep,
    generate,
    joined,
    source_log_odds,
)
from farm.backbones.infinity.loss import margins_of
from farm.backbones.infinity.quantiser import (
    accumulate,
    quantise,
    teacher_inputs,
    to_cells,
    to_tokens,
)
from farm.backbones.infinity.sampling import Filter, KeyedNoise
from farm.backbones.infinity.transformer import PassOptions
from farm.errors import InvalidRequestError
from tests.tiny_infinity import SCHEDULE, text_rows, tiny_transformer

RULE = Filter(900, 0.97)


@pytest.fixture(scope="module")
def model():
    return tiny_transformer()


def source(batch=1):
    features = torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    return quantise(features, SCHEDULE)


def steps(
    model,
    *,
    seeds=(0,),
    strength=3.0,
    guided=True,
    insertion=0,
    weight=None,
    rows=5,
    log_odds=None,
    rule=RULE,
):
    given = model.condition(torch.stack([text_rows(rows, 10 + s) for s in seeds]))
    guidance = guidance_of(model, seeds, strength, guided=guided, insertion=insertion)
    keep = None if weight is None else Keep(source(len(seeds)).bits, weight, log_odds)
    noise = KeyedNoise(list(seeds))
    return list(generate(model, given, SCHEDULE, guidance, rule, noise, keep=keep))


def guidance_of(model, seeds=(0,), strength=3.0, *, guided=True, insertion=0):
    uncond = None
    if guided:
        uncond = model.condition(model.unconditional(5).expand(len(seeds), -1, -1))
    shape = (len(seeds), SCHEDULE.num_scales)
    # another strength and temperature at each scale, so that none is taken for another's
    rising = 1 + 0.1 * torch.arange(SCHEDULE.num_scales).expand(shape)
    strengths = torch.full(shape, strength) if strength == 1 else strength * rising
    return Guidance(uncond, strengths, 0.5 * rising, insertion)


def odds_of(model, seeds=(0,), rows=5, **guided):
    """Of the source under the text that `steps` has."""
    given = model.condition(torch.stack([text_rows(rows, 10 + s) for s in seeds]))
    guidance = guidance_of(model, seeds, **guided)
    return source_log_odds(model, given, SCHEDULE, guidance, source(len(seeds)).bits)


def bits_of(found):
    return torch.cat([step.bits for step in found], dim=1)


def test_all_weight_on_the_source_gives_its_codes_exactly(model):
    found = steps(model, weight=torch.ones(1, 1, 4, 4))
    assert torch.equal(found[-1].codes, source().codes)


def test_cells_of_the_source_stay_and_others_come(model):
    weight = torch.ones(1, 1, 4, 4)
    weight[..., 2:] = 0
    found = steps(model, weight=weight)[-1].codes
    assert torch.equal(found[..., :2], source().codes[..., :2])
    assert not torch.equal(found[..., 2:], source().codes[..., 2:])


def test_no_weight_is_generation_without_a_source(model):
    found = steps(model, weight=torch.zeros(1, 1, 4, 4))
    assert torch.equal(bits_of(found), bits_of(steps(model)))


def test_codes_are_the_sum_of_what_was_drawn(model):
    found = steps(model)
    cells = [to_cells(s.bits, g, 1) for s, g in zip(found, SCHEDULE.grids, strict=True)]
    for step, total in zip(found, accumulate(cells, SCHEDULE).history, strict=True):
        assert torch.equal(step.codes, total)


def test_guidance_of_one_is_the_text_alone(model):
    both = steps(model, strength=1.0)
    alone = steps(model, guided=False)
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(bits_of(both), bits_of(alone))


def test_guidance_mixes_logits(model):
    found = steps(model, strength=3.0, weight=torch.ones(1, 1, 4, 4))
    inputs = teacher_inputs(source(), SCHEDULE)
    with torch.no_grad():
        cond, _ = model(model.condition(text_rows(5, 10)[None]), inputs, SCHEDULE)
        uncond, _ = model(model.condition(model.unconditional(5)[None]), inputs, SCHEDULE)
    guidance = guidance_of(model)
    lengths = torch.tensor(SCHEDULE.lengths)
    strength, temperature = (
        scales.repeat_interleave(lengths, dim=1)[..., None]
        for scales in (guidance.strength, guidance.temperature)
    )
    expected = (strength * cond + (1 - strength) * uncond) / temperature
    logits = torch.cat([step.logits for step in found], dim=1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)  # tenfold rounding


@pytest.mark.parametrize("insertion", [0, -1])
def test_samples_of_a_batch_are_what_they_are_alone(model, insertion):
    both = bits_of(steps(model, seeds=(3, 4), insertion=insertion))
    for row, seed in enumerate((3, 4)):
        alone = bits_of(steps(model, seeds=(seed,), insertion=insertion))
        assert torch.equal(both[row : row + 1], alone)


def test_after_the_last_block_guidance_mixes_as_the_norm_lets_it(model):
    """Two insertions differ, and neither is the text alone."""
    plain = steps(model, guided=False)
    inserted = steps(model, insertion=-1)
    mixed = steps(model)
    assert not torch.allclose(plain[0].logits, inserted[0].logits)
    assert not torch.allclose(mixed[0].logits, inserted[0].logits)


@pytest.mark.parametrize("insertion", [1, -2])
def test_an_insertion_that_is_no_block_is_refused(model, insertion):
    with pytest.raises(InvalidRequestError, match="-1 to -1"):
        steps(model, insertion=insertion)


def test_texts_of_different_length_are_joined(model):
    """A negative prompt may be shorter than the text."""
    long = model.condition(text_rows(7, 1)[None])
    short = model.condition(text_rows(4, 2)[None])
    inputs = teacher_inputs(source(), SCHEDULE)
    with torch.no_grad():
        both, _ = model(joined(long, short), inputs.repeat(2, 1, 1), SCHEDULE)
        one, _ = model(long, inputs, SCHEDULE)
        other, _ = model(short, inputs, SCHEDULE, PassOptions())
    # products of attention are summed in another order
    torch.testing.assert_close(both, torch.cat([one, other]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("guided", [{}, {"guided": False}, {"insertion": -1}], ids=str)
def test_odds_are_the_chances_with_which_a_generation_of_the_source_draws(model, guided):
    """One pass over all scales says what scale after scale does, each after the true ones."""
    found = steps(model, seeds=(0, 1), weight=torch.ones(1, 1, 4, 4), **guided)
    logits = torch.cat([step.logits for step in found], dim=1)
    expected = margins_of(logits)
    odds = odds_of(model, seeds=(0, 1), **guided)
    torch.testing.assert_close(odds, expected, rtol=0, atol=1e-4)  # tenfold rounding


@pytest.mark.parametrize("guided", [{}, {"guided": False}, {"insertion": -1}], ids=str)
def test_the_sources_own_noise_gives_the_source_under_its_own_text(model, guided):
    """Though nothing of it is kept, and whatever the seed."""
    nothing, whole = torch.zeros(1, 1, 4, 4), Filter(900, 0.0)
    for seed in range(20):
        odds = odds_of(model, seeds=(seed,), **guided)
        found = steps(model, seeds=(seed,), weight=nothing, log_odds=odds, rule=whole, **guided)
        for step, wanted in zip(found, source().bits, strict=True):
            assert torch.equal(to_cells(step.bits, wanted.shape[-2:], 1), wanted)


def test_under_another_text_more_of_the_source_comes_with_its_noise(model):
    nothing = torch.zeros(1, 1, 4, 4)
    odds = odds_of(model)
    kept, free = 0, 0
    for seed in range(1, 21):
        wanted = torch.cat([to_tokens(bits, 1) for bits in source().bits], dim=1)
        tied = steps(model, seeds=(seed,), weight=nothing, log_odds=odds)
        kept += (bits_of(tied) == wanted).sum()
        free += (bits_of(steps(model, seeds=(seed,), weight=nothing)) == wanted).sum()
    assert kept > free
