import torch
import torch.nn.functional as F

from farm.backbones.infinity.loss import bit_loss, token_weights
from farm.backbones.infinity.schedules import table_schedule
from tests.tiny_infinity import SCHEDULE


def example(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, SCHEDULE.num_tokens, 8, generator=generator, dtype=dtype)
    targets = torch.rand(2, SCHEDULE.num_tokens, 4, generator=generator) < 0.5
    return logits, targets


def test_it_is_two_class_cross_entropy():
    logits, targets = example()
    pairs = logits.unflatten(-1, (4, 2))
    each = F.cross_entropy(pairs.flatten(0, 2), targets.flatten().long(), reduction="none")
    each = each.view(2, -1, 4)
    found = bit_loss(logits, targets, SCHEDULE)
    torch.testing.assert_close(found.plain, each.mean((1, 2)))
    torch.testing.assert_close(found.divergence, each.sum((1, 2)))
    weights = token_weights(SCHEDULE)
    torch.testing.assert_close(found.weighted, (each.mean(2) * weights).sum(1))
    torch.testing.assert_close(found.by_scale[:, 0], each[:, 0].mean(1))
    right = (pairs.argmax(-1) == targets).float()
    torch.testing.assert_close(found.accuracy[:, 2], right[:, 5:].mean((1, 2)))


def test_scales_count_by_their_side():
    """Shares of the scales at a megapixel, spec §4, in percent."""
    schedule = table_schedule("1.000", "1M", cell=1, stride=16)
    shares = [100 * part.sum().item() for part in token_weights(schedule).split(schedule.lengths)]
    assert [round(s, 1) for s in shares[4:]] == [2.9, 4.3, 5.8, 7.2, 8.7, 11.6, 14.4, 17.3, 23.1]


def test_gradient_is_right_and_finite_for_extreme_logits():
    logits, targets = example(dtype=torch.float64)
    leaf = logits[:1].requires_grad_()
    plain = torch.nn.functional.cross_entropy(
        leaf.unflatten(-1, (4, 2)).flatten(0, 2), targets[:1].flatten().long()
    )
    (expected,) = torch.autograd.grad(plain, leaf)
    (found,) = torch.autograd.grad(bit_loss(leaf, targets[:1], SCHEDULE).plain.sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)  # ours sums singly
    far = (1e4 * logits.float()).requires_grad_()
    loss = bit_loss(far, targets, SCHEDULE).weighted.sum()
    assert loss.isfinite()
    assert torch.autograd.grad(loss, far)[0].isfinite().all()
