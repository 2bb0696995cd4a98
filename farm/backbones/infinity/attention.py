"""Attention of the blocks: cosine self-attention over scales, and cross-attention to the text."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from farm.backbones.infinity.cache import Heads, LayerCache, Seen
from farm.backbones.infinity.rope import rotate

_MAX_LOG_SCALE = math.log(100)
_NORM_EPS = 1e-12

Tokens: TypeAlias = Float[Tensor, "batch tokens width"]
KeyValue: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values, each (batch, heads, tokens, head_dim)."""


def linear(layer: nn.Module, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch _"]:
    """A linear layer in the precision of its weights."""
    assert isinstance(layer.weight, Tensor)
    return layer(x.to(layer.weight.dtype))


class SelfAttention(nn.Module):
    """Unit queries and keys, a learned scale per head, softmax scale 1 (spec §0.3, §0.4, §2.4).

    A token sees all tokens of its own scale and of those before. That is computed scale by scale
    over a prefix of the keys, which is exact and needs no mask.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4)))
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tokens,
        rope: Float[Tensor, "2 tokens pairs"],
        lengths: Sequence[int],
        cache: LayerCache | None,
        *,
        biases: bool,
    ) -> Tokens:
        """Attention of the tokens of one or more whole scales.

        Args:
            x: normalised and modulated.
            rope: of these tokens.
            lengths: tokens of each scale in `x`.
            cache: keys and values of earlier scales, which are added to; None if `x` holds all.
            biases: False leaves out q_bias and v_bias, as the released EditInfinity does (§0.1).
        """
        query, key, value = linear(self.mat_qkv, x).chunk(3, dim=-1)
        if biases:
            query, value = query + self.q_bias, value + self.v_bias
        query, key, value = (t.unflatten(-1, (self.heads, -1)) for t in (query, key, value))
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        scale = self.scale_mul_1H11.float().clamp(max=_MAX_LOG_SCALE).exp()
        query = rotate(F.normalize(query.float(), dim=-1, eps=_NORM_EPS) * scale, rope)
        key = rotate(F.normalize(key.float(), dim=-1, eps=_NORM_EPS), rope)
        dtype = self.mat_qkv.weight.dtype
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if cache is not None:
            key, value = cache.extend(key, value)
        mixed = _over_prefixes(query, key, value, lengths)
        return linear(self.proj, mixed.transpose(1, 2).flatten(2)).float()


class CrossAttention(nn.Module):
    """From image tokens to text rows, with the usual softmax scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.mat_q = nn.Linear(width, width)
        self.mat_kv = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def keys_values(self, context: Tokens, *, biases: bool) -> KeyValue:
        """Keys and values of the text, which serve every scale."""
        key, value = linear(self.mat_kv, context).chunk(2, dim=-1)
        if biases:
            value = (value + self.v_bias).to(key.dtype)
        return self._split(key), self._split(value)

    def forward(
        self, x: Tokens, text: KeyValue, present: Bool[Tensor, "batch rows"] | None
    ) -> Tokens:
        key, value = text
        query = self._split(linear(self.mat_q, x)).to(key.dtype)
        mask = None if present is None else present[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return linear(self.proj, mixed.transpose(1, 2).flatten(2)).float()

    def shares(
        self,
        x: Tokens,
        text: KeyValue,
        present: Bool[Tensor, "batch rows"] | None,
        watched: Float[Tensor, "batch sets rows"],
    ) -> Float[Tensor, "batch sets tokens"]:
        """Attention probability of each token, weighted over text rows, mean over heads."""
        key, _ = text
        query = self._split(linear(self.mat_q, x)).float()
        scores = query @ key.float().transpose(-1, -2) / query.shape[-1] ** 0.5
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None], -math.inf)
        return torch.einsum("bhqt,bst->bsq", scores.softmax(-1), watched) / self.heads

    def _split(self, x: Tokens) -> Heads:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _over_prefixes(query: Heads, key: Seen, value: Seen, lengths: Sequence[int]) -> Heads:
    start, end = 0, key.shape[2] - query.shape[2]
    mixed: list[Tensor] = []
    for length in lengths:
        end += length
        part = F.scaled_dot_product_attention(
            query[:, :, start : start + length], key[:, :, :end], value[:, :, :end], scale=1.0
        )
        mixed.append(part)
        start += length
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)
