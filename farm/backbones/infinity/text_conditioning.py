"""From text rows to what the blocks take: one vector, and rows for cross-attention (spec §2.2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

_EPS = 1e-6

Rows = Float[Tensor, "batch tokens embed"]
Present = Bool[Tensor, "batch tokens"]
"""True for rows that count; rows after a shorter text's end do not."""


class TextNorm(nn.Module):
    """Root-mean-square norm, in single precision."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, text: Rows) -> Rows:
        text = text.float()
        return text * torch.rsqrt(text.square().mean(-1, keepdim=True) + _EPS) * self.weight


class AttentivePool(nn.Module):
    """All text rows to one vector: attention with a learned query per head."""

    def __init__(self, text_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.mat_q = nn.Parameter(torch.zeros(1, heads, width // heads))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.mat_kv = nn.Linear(text_width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self, text: Rows, present: Present | None, *, biases: bool = True
    ) -> Float[Tensor, "batch width"]:
        key, value = self.mat_kv(text).chunk(2, dim=-1)
        if biases:
            value = value + self.v_bias
        heads = self.mat_q.shape[1]
        key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (key, value))
        query = self.mat_q[:, :, None].expand(len(text), -1, -1, -1).to(key)
        mask = None if present is None else present[:, None, None]
        pooled = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(pooled.flatten(1))


def context_projection(text_width: int, width: int) -> nn.Sequential:
    """Text rows to the rows that cross-attention reads."""
    return nn.Sequential(
        nn.Linear(text_width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
    )
