import torch

from farm.methods.style_diffusion.windows import cross_windows, self_active, value_active


def test_shares_of_steps():
    assert [value_active(n, 4, 0.55) for n in range(4)] == [True, True, True, False]
    assert [self_active(n, 4, (0.0, 0.55)) for n in range(4)] == [True, True, False, False]
    assert [self_active(n, 4, (0.25, 0.75)) for n in range(4)] == [False, True, True, False]


def test_tokens_with_windows_of_their_own():
    table = cross_windows(3, 4, (0.0, 1.0), [([1, 2], (0.25, 0.5))])
    expected = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1]])
    assert torch.equal(table, expected.float())
