"""Which text rows of a caption speak of which object, or of the background."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.infinity.tokenizer import TextTokenizer, TextTokens
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES, SIZES, SLOTS

_ATTRIBUTES = frozenset((*COLOUR_NAMES, *PATTERNS, *SIZES))
BACKGROUND_SET = SLOTS


def word_sets(
    tokenizer: TextTokenizer, texts: Sequence[str], orders: Sequence[Sequence[int]], rows: int
) -> tuple[Float[Tensor, "texts sets rows"], Int[Tensor, "texts sets"]]:
    """Rows of each object's words and of the background's, and which sets a caption has.

    Args:
        tokenizer: of the captions.
        texts: captions.
        orders: each caption's objects in the order of their nouns.
        rows: width of the result.

    Returns:
        Weights that sum to one in every set that is there, and the set's own number, or -1 where a
        caption says nothing of it.
    """
    weights = torch.zeros(len(texts), SLOTS + 1, rows)
    for row, (text, order) in enumerate(zip(texts, orders, strict=True)):
        _mark(weights[row], tokenizer.encode(text), order)
    there = weights.sum(-1) > 0
    numbers = torch.arange(SLOTS + 1).expand(len(texts), -1)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    return weights, torch.where(there, numbers, -1)


def _mark(weights: Float[Tensor, "sets rows"], tokens: TextTokens, order: Sequence[int]) -> None:
    words = [tokens.prompt[start:end].strip().lower() for start, end in tokens.spans]
    slots = iter(order)
    for position, word in enumerate(words):
        if word in BACKGROUNDS:
            weights[BACKGROUND_SET, position] = 1
        if word in SHAPES:
            slot = next(slots)
            weights[slot, position] = 1
            before = position - 1
            while before >= 0 and words[before] in _ATTRIBUTES:
                weights[slot, before] = 1
                before -= 1
