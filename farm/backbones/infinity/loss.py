"""Loss of predicted bits (spec §4)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farm.backbones.infinity.schedules import Schedule

Logits = Float[Tensor, "batch tokens two_bits"]
Targets = Bool[Tensor, "batch tokens token_bits"]


@dataclass(frozen=True)
class BitLoss:
    """What one pass says about bits that are known, for each sample.

    Attributes:
        weighted: cross-entropy with every scale weighted by its side length.
        plain: mean cross-entropy over all tokens and bits.
        divergence: Kullback-Leibler divergence from the one-hot bits: sum over tokens and bits.
        by_scale: mean cross-entropy of each scale.
        accuracy: share of bits predicted right in each scale.
    """

    weighted: Float[Tensor, " batch"]
    plain: Float[Tensor, " batch"]
    divergence: Float[Tensor, " batch"]
    by_scale: Float[Tensor, "batch scales"]
    accuracy: Float[Tensor, "batch scales"]


def bit_loss(logits: Logits, targets: Targets, schedule: Schedule) -> BitLoss:
    """Two-class cross-entropy of every bit, summed up in the ways that are needed."""
    margins = margins_of(logits)
    sign = 1 - 2 * targets.float()
    each = F.softplus(sign * margins)  # -log p of the right bit, finite for any logits
    tokens = each.mean(-1)
    weights = token_weights(schedule).to(tokens)
    right = ((margins > 0) == targets).float().mean(-1)
    return BitLoss(
        weighted=(tokens * weights).sum(1),
        plain=tokens.mean(1),
        divergence=each.sum(dim=(1, 2)),
        by_scale=_scale_means(tokens, schedule),
        accuracy=_scale_means(right, schedule),
    )


def margins_of(logits: Logits) -> Float[Tensor, "batch tokens token_bits"]:
    """Logit of bit 1 less that of bit 0."""
    zero, one = logits.float().unflatten(-1, (-1, 2)).unbind(-1)
    return one - zero


def token_weights(schedule: Schedule) -> Float[Tensor, " tokens"]:
    """√(last grid) / √(own grid) of each token, normalised to a sum of one."""
    last = schedule.lengths[-1]
    weights = torch.cat([torch.full((n,), (last / n) ** 0.5) for n in schedule.lengths])
    return weights / weights.sum()


def _scale_means(
    tokens: Float[Tensor, "batch tokens"], schedule: Schedule
) -> Float[Tensor, "batch scales"]:
    return torch.stack([part.mean(1) for part in tokens.split(schedule.lengths, dim=1)], dim=1)
