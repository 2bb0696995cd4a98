import pytest
import torch
from torch import Tensor

from farm.losses.attention import attention_loss

SHAPES = ((2, 3, 16, 5), (2, 1, 16, 5), (2, 4, 4, 5))


def maps(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).softmax(-1) for shape in SHAPES
    ]


def test_layers_count_alike_whatever_their_size() -> None:
    targets = maps(0)
    shifted = [layer + 0.1 for layer in targets]
    expected = torch.full((2,), 0.01 * len(SHAPES), dtype=torch.float64)
    torch.testing.assert_close(attention_loss(shifted, targets), expected)


def test_samples_are_apart() -> None:
    own, targets = maps(0), maps(1)
    both = attention_loss(own, targets)
    for row in range(2):
        alone = attention_loss([m[row : row + 1] for m in own], [m[row : row + 1] for m in targets])
        torch.testing.assert_close(both[row : row + 1], alone)


def test_gradient() -> None:
    own, targets = [m.requires_grad_() for m in maps(0)], maps(1)
    assert torch.autograd.gradcheck(lambda *layers: attention_loss(layers, targets), own)


def test_layers_must_correspond() -> None:
    with pytest.raises(ValueError, match="shorter"):
        attention_loss(maps(0), maps(1)[:2])
