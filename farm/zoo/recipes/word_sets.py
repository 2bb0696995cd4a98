"""Which text rows of a caption speak of which object, or of the background."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.infinity.tokenizer import TextTokenizer, TextTokens
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES, SIZES, SLOTS

_ATTRIBUTES = frozenset((*COLOUR_NAMES, *PATTERNS, *SIZES))
BACKGROUND_TAG = SLOTS


def word_sets(
    tokenizer: TextTokenizer, texts: Sequence[str], orders: Sequence[Sequence[int]], rows: int
) -> tuple[Float[Tensor, "texts sets rows"], Int[Tensor, "texts sets"]]:
    """One set for every word that names an object, an attribute or the background.

    Each word is a set of its own, since any of them may be the one whose attention is asked for
    later: together, the word that is looked at most would speak for the rest.

    Args:
        tokenizer: of the captions.
        texts: captions.
        orders: each caption's objects in the order of their nouns.
        rows: width of the result.

    Returns:
        Weights, one row in each set, and of what a set speaks: an object's slot, `BACKGROUND_TAG`,
        or -1 where a caption has fewer such words than another.
    """
    named = [_named(tokenizer.encode(t), order) for t, order in zip(texts, orders, strict=True)]
    sets = max(1, *map(len, named)) if named else 1
    weights = torch.zeros(len(texts), sets, rows)
    tags = torch.full((len(texts), sets), -1)
    for text, found in enumerate(named):
        for number, (position, tag) in enumerate(found):
            weights[text, number, position] = 1
            tags[text, number] = tag
    return weights, tags


def _named(tokens: TextTokens, order: Sequence[int]) -> list[tuple[int, int]]:
    """Positions of the words that count, and of what each speaks."""
    words = [tokens.prompt[start:end].strip().lower() for start, end in tokens.spans]
    slots = iter(order)
    found: list[tuple[int, int]] = []
    for position, word in enumerate(words):
        if word in BACKGROUNDS:
            found.append((position, BACKGROUND_TAG))
        if word in SHAPES:
            slot = next(slots)
            found.append((position, slot))
            before = position - 1
            while before >= 0 and words[before] in _ATTRIBUTES:
                found.append((before, slot))
                before -= 1
    return found
