"""One block of the transformer (spec §2.4); the residual stream is single precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from farm.backbones.infinity.attention import (
    CrossAttention,
    KeyValue,
    SelfAttention,
    Tokens,
    linear,
)
from farm.backbones.infinity.cache import LayerCache
from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.lora import LayerLora

EPS = 1e-6

Watched = Float[Tensor, "batch sets rows"]
"""Weights of text rows, in one or more sets."""
Shares = Float[Tensor, "batch sets tokens"]
"""Attention probability that each image token gives to each set, mean over heads."""


@dataclass(frozen=True)
class BlockInputs:
    """What a block takes besides its tokens.

    Attributes:
        modulation: shared part of the adaptive norm: two gammas, two scales, two shifts.
        text: keys and values of the text for this block.
        present: text rows that count; None: all.
        rope: of the tokens.
        lengths: tokens of each scale.
        cache: of earlier scales.
        lora: adapters of fc1 and fc2.
        branch_scale: factors of self-attention and feed-forward (dropped paths).
        biases: False leaves out the biases that the released EditInfinity drops.
    """

    modulation: Float[Tensor, "batch 6 width"]
    text: KeyValue
    present: Bool[Tensor, "batch rows"] | None
    rope: Float[Tensor, "2 tokens pairs"]
    lengths: Sequence[int]
    cache: LayerCache | None = None
    lora: tuple[LayerLora, LayerLora] | None = None
    branch_scale: Float[Tensor, "batch 2"] | None = None
    biases: bool = True


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tokens, lora: tuple[LayerLora, LayerLora] | None) -> Tokens:
        x = x.to(self.fc1.weight.dtype)
        inner = linear(self.fc1, x)
        if lora is not None:
            inner = inner + lora[0](x)
        inner = F.gelu(inner, approximate="tanh")
        outer = linear(self.fc2, inner)
        if lora is not None:
            outer = outer + lora[1](inner)
        return outer.float()


class Block(nn.Module):
    """Self-attention and feed-forward under an adaptive norm, cross-attention under a plain one."""

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, config.width))
        self.sa = SelfAttention(config.width, config.heads)
        self.ca = CrossAttention(config.width, config.heads)
        self.ffn = FeedForward(config.width, config.hidden)
        self.ca_norm = nn.LayerNorm(config.width, eps=EPS)

    def forward(
        self, x: Tokens, given: BlockInputs, watched: Watched | None = None
    ) -> tuple[Tokens, Shares | None]:
        """The tokens after this block, and how much attention each pays to sets of text rows."""
        parts = (self.ada_gss[0] + given.modulation)[:, :, None].unbind(1)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = parts
        if given.branch_scale is not None:
            factors = given.branch_scale[:, :, None, None].unbind(1)
            gamma1, gamma2 = gamma1 * factors[0], gamma2 * factors[1]
        attended = self.sa(
            plain_norm(x) * (1 + scale1) + shift1,
            given.rope,
            given.lengths,
            given.cache,
            biases=given.biases,
        )
        x = x + gamma1 * attended
        asking = self.ca_norm(x)
        shares = None
        if watched is not None:
            shares = self.ca.shares(asking, given.text, given.present, watched)
        x = x + self.ca(asking, given.text, given.present)
        x = x + gamma2 * self.ffn(plain_norm(x) * (1 + scale2) + shift2, given.lora)
        return x, shares


def plain_norm(x: Tokens) -> Tokens:
    """Layer norm without parameters, in single precision."""
    return F.layer_norm(x.float(), (x.shape[-1],), eps=EPS)
