"""From logits to bits: two classes a bit, filtered, drawn by noise that is given (spec §2.7)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

BitLogits = Float[Tensor, "*batch 2"]

_LEAST = 1e-30
"""Thresholds are divided by, and single precision can."""


@dataclass(frozen=True)
class Filter:
    """Which values of a bit may be drawn.

    Attributes:
        top_k: 1 takes the likelier value always; with two values anything else changes nothing.
        top_p: a value is dropped if its probability is at most 1 - top_p; 0 drops none.
    """

    top_k: int = 0
    top_p: float = 0.0


def probabilities(logits: BitLogits, rule: Filter) -> BitLogits:
    """Probabilities of the two values of each bit after filtering; they sum to one."""
    chances = logits.float().softmax(-1)
    if rule.top_k == 1:
        allowed = chances >= chances.amax(-1, keepdim=True)
        chances = chances * allowed
    if rule.top_p > 0:
        # ascending cumulative probability: the smaller is dropped by itself, the larger never
        smaller = chances < chances.amax(-1, keepdim=True)
        chances = chances.masked_fill(smaller & (chances <= 1 - rule.top_p), 0)
    return chances / chances.sum(-1, keepdim=True)


def draw(chances: BitLogits, noise: Float[Tensor, "*batch 2"]) -> Bool[Tensor, "*batch"]:
    """One draw for each bit: the largest of p / e with e exponential noise, as torch draws."""
    return (chances / noise).argmax(-1) == 1


def in_hindsight(
    noise: Float[Tensor, "*batch 2"],
    bits: Bool[Tensor, "*batch"],
    log_odds: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch 2"]:
    """Noise as it must have been for `draw` to give known bits, as random as these leave it.

    Two values are drawn as one threshold, u = e_1 / (e_0 + e_1) < p_1, uniform before anything is
    known: a one says that it was below the chance of a one, a zero that it was not. Drawing with
    it for other chances is the counterfactual of a Gumbel-max draw (arXiv:1905.05824): a bit
    changes only where its chance moved to the other side of the threshold.

    Args:
        noise: exponential, not looked back from anything.
        bits: what was drawn.
        log_odds: of a one, with which it was drawn; chances themselves would not tell a bit that
            is all but impossible from one that is twice as likely.

    Returns:
        Pairs for `draw`, which sum to one.
    """
    above, below = (noise / noise.sum(-1, keepdim=True)).unbind(-1)
    below, above = below * log_odds.sigmoid(), above * (-log_odds).sigmoid()
    pairs = torch.where(
        bits[..., None],
        torch.stack([1 - below, below], dim=-1),
        torch.stack([above, 1 - above], dim=-1),
    )
    return pairs.clamp(min=_LEAST)


class KeyedNoise:
    """Exponential noise of a batch, each item's from its own seed, drawn on the CPU.

    So a sample is the same alone or in a batch and on every kind of device, up to rounding.
    """

    def __init__(self, seeds: list[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    @classmethod
    def resumed(cls, states: UInt8[Tensor, "batch bytes"]) -> "KeyedNoise":
        """Goes on where `states` were taken."""
        noise = cls([0] * len(states))
        for generator, state in zip(noise._generators, states, strict=True):
            generator.set_state(state.cpu().clone())  # it reads from where its storage begins
        return noise

    @property
    def states(self) -> UInt8[Tensor, "batch bytes"]:
        """Where each item's generator is, on the CPU."""
        return torch.stack([generator.get_state() for generator in self._generators])

    def draw(self, count: int, device: torch.device) -> Float[Tensor, "batch {count} 2"]:
        """The next `count` pairs of each item."""
        rows = [torch.empty(count, 2).exponential_(1, generator=g) for g in self._generators]
        return torch.stack(rows).to(device)
