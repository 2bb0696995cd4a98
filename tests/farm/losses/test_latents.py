import torch

from farm.losses.latents import latent_loss


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_constant_shift_costs_its_square() -> None:
    target = latents(2, 4, 8, 8)
    shift = torch.tensor([0.5, -2.0], dtype=torch.float64)
    torch.testing.assert_close(
        latent_loss(target + shift[:, None, None, None], target), shift.square()
    )


def test_value_is_the_mean_of_squares_of_each_sample() -> None:
    moved, target = latents(3, 4, 5, 7), latents(3, 4, 5, 7, seed=1)
    expected = [((m - t) ** 2).sum() / (4 * 5 * 7) for m, t in zip(moved, target, strict=True)]
    torch.testing.assert_close(latent_loss(moved, target), torch.stack(expected))


def test_gradient() -> None:
    moved, target = latents(2, 2, 3, 3).requires_grad_(), latents(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(latent_loss, (moved, target))
    (gradient,) = torch.autograd.grad(latent_loss(moved, target).sum(), moved)
    torch.testing.assert_close(gradient, 2 * (moved.detach() - target) / 18)
