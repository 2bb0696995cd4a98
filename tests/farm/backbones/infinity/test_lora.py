import pytest
import torch

from farm.backbones.infinity.lora import Dropout, Lora, LoraShape
from farm.backbones.infinity.quantiser import quantise, teacher_inputs
from farm.backbones.infinity.transformer import PassOptions
from tests.tiny_infinity import CONFIG, SCHEDULE, text_rows, tiny_transformer

SHAPE = LoraShape(CONFIG.depth, CONFIG.width, CONFIG.hidden, 2)


def flat(seed):
    return torch.randn(SHAPE.size, generator=torch.Generator().manual_seed(seed)) * 0.2


def run(model, lora, batch=2):
    features = torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    inputs = teacher_inputs(quantise(features, SCHEDULE), SCHEDULE)
    text = torch.stack([text_rows(5, n) for n in range(batch)])
    with torch.no_grad():
        return model(model.condition(text), inputs, SCHEDULE, PassOptions(lora=lora))[0]


def test_each_sample_of_a_batch_has_its_own_as_if_merged():
    both = Lora.unflatten(torch.stack([flat(1), flat(2)]), SHAPE, torch.tensor([8.0, 0.5]))
    found = run(tiny_transformer(), both)
    for sample in range(2):
        merged = tiny_transformer()
        for number, block in enumerate(merged.blocks):
            for layer, adapter in zip(
                (block.ffn.fc1, block.ffn.fc2), both.layers(number), strict=True
            ):
                change = adapter.scale[sample] * adapter.b[sample] @ adapter.a[sample]
                layer.weight += change
        # rounding of products that are summed in another order
        torch.testing.assert_close(found[sample], run(merged, None)[sample], rtol=1e-4, atol=1e-5)


def test_zero_adapters_change_nothing():
    nothing = Lora.unflatten(torch.zeros(2, SHAPE.size), SHAPE, torch.ones(2))
    assert torch.equal(run(tiny_transformer(), nothing), run(tiny_transformer(), None))


def test_stacks_are_where_the_vector_says():
    numbers = torch.arange(SHAPE.size).float()[None]
    stacks = Lora.unflatten(numbers, SHAPE, torch.ones(1)).stacks
    assert [tuple(s.shape[1:]) for s in stacks] == list(SHAPE.parts)
    assert torch.equal(torch.cat([s.flatten() for s in stacks]), numbers[0])


def test_copies_of_the_batch_have_the_same_adapters():
    lora = Lora.unflatten(torch.stack([flat(1), flat(2)]), SHAPE, torch.tensor([1.0, 2.0]))
    twice = lora.repeated(2)
    for one, other in zip(twice.stacks, lora.stacks, strict=True):
        assert torch.equal(one[2:], other)
    assert twice.scale.tolist() == [1.0, 2.0, 1.0, 2.0]


def test_dropout_is_the_seeds_own_whoever_shares_the_batch():
    x = torch.ones(2, 50, 40)
    dropout = Dropout(0.25, torch.tensor([5, 6]))
    found = dropout(x, 3)
    assert torch.equal(found, dropout(x, 3))
    alone = Dropout(0.25, torch.tensor([6]))(x[1:], 3)
    assert torch.equal(found[1:], alone)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found, dropout(x, 4))
    # 4000 draws: five standard deviations
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.035)
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.75])
