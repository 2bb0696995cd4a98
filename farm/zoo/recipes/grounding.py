"""Grounding of cross-attention on masks, as TokenCompose does, for the scenes UNet.

Uses the true masks of the training scenes: say so wherever attention is evaluated. The text tower
is frozen meanwhile; on a trainable one this loss makes all object words alike (docs/zoo.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.tokenizer import PromptTokenizer
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES, SIZES, SLOTS

_SMALLEST_MAP = 64  # 8x8: below that a cell holds object and background alike
BACKGROUND_TAG = SLOTS


class MapRecorder:
    """Attention processor for training: keeps one pass's cross-attention, averaged over heads."""

    def __init__(self) -> None:
        self.maps: list[Float[Tensor, "batch _ tokens"]] = []

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, whose projections it annotates as optional
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = split(attn.to_q(hidden_states))
        key, value = split(attn.to_k(context)), split(attn.to_v(context))
        # Plain products: fused attention's backward takes twice as long on a CPU with heads of
        # 8 to 24 features, half of a training step.
        weights = ((query * attn.scale) @ key.transpose(-1, -2)).softmax(-1)
        if encoder_hidden_states is not None and query.shape[2] >= _SMALLEST_MAP:
            self.maps.append(weights.float().mean(1))
        mixed = weights.to(value.dtype) @ value
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out


class TokenTags:
    """Which object, or the background, each token of a caption speaks of."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        def ids(words: tuple[str, ...]) -> Tensor:
            return torch.tensor([tokenizer.encode(w).ids[1] for w in words])

        self._nouns = ids(SHAPES)
        self._attributes = ids((*COLOUR_NAMES, *PATTERNS, *SIZES))
        self._backgrounds = ids(BACKGROUNDS)

    def __call__(
        self, ids: Int[Tensor, "batch tokens"], orders: list[list[int]]
    ) -> Int[Tensor, "batch tokens"]:
        """Slot per token, `BACKGROUND_TAG` for the background's word, -1 for all others.

        `orders` names each caption's objects in the order of their nouns.
        """
        tags = torch.full_like(ids, -1)
        noun, attribute = torch.isin(ids, self._nouns), torch.isin(ids, self._attributes)
        tags[torch.isin(ids, self._backgrounds)] = BACKGROUND_TAG
        for row, order in enumerate(orders):
            for position, slot in zip(noun[row].nonzero()[:, 0].tolist(), order, strict=True):
                tags[row, position] = slot
                before = position - 1
                while before > 0 and attribute[row, before]:
                    tags[row, before] = slot
                    before -= 1
        return tags


def grounding_loss(
    maps: list[Float[Tensor, "batch _ tokens"]],
    masks: Float[Tensor, "batch slots height width"],
    tags: Int[Tensor, "batch tokens"],
    weight: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Cross-entropy between each tagged token's map and the uniform distribution on its mask.

    Zero gradient only when the map covers the whole mask evenly and nothing else; mass inside the
    mask alone would be satisfied by a single bright pixel.
    """
    whole = torch.cat([masks, 1 - masks.amax(1, keepdim=True)], 1)
    rows, tokens = (tags >= 0).nonzero(as_tuple=True)
    slots = tags[rows, tokens]
    total = maps[0].new_zeros(())
    for attention in maps:
        side = round(attention.shape[1] ** 0.5)
        wanted = F.adaptive_avg_pool2d(whole, side).flatten(2)[rows, slots]
        wanted = wanted / wanted.sum(1, keepdim=True).clamp(min=1e-6)
        given = attention[rows, :, tokens]
        given = given / given.sum(1, keepdim=True)
        each = -(wanted * (given + 1e-8).log()).sum(1) + (wanted * (wanted + 1e-8).log()).sum(1)
        total = total + (each * weight[rows]).mean()
    return total / len(maps)
