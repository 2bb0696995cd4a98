"""Which source tokens' attention a target token takes (StyleDiffusion spec §7).

A mapper has a row per source position and a column per target position: the replaced maps are
`source_maps @ mapper`. Positions are those of the text encoder, padding included.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.style_diffusion.words import Tokens, find_words, replaced_tokens


@dataclass(frozen=True)
class TokenMap:
    """How a target's cross-attention maps are made from the source's.

    Attributes:
        mapper: see the module.
        alpha: 1 where a target token has a counterpart, 0 where it keeps its own map.
    """

    mapper: Float[Tensor, "tokens tokens"]
    alpha: Float[Tensor, " tokens"]


def replacement_map(source: Tokens, target: Tokens, *, reference: bool = False) -> TokenMap:
    """Words changed one for one.

    Equally many tokens correspond one to one; otherwise each of the source word's tokens spreads
    evenly over the target word's. Every row sums to 1, so no attention is lost. `reference`
    reproduces the released program, which after the last changed word forgets by how many tokens
    the prompts are shifted.

    Raises:
        InvalidPromptError: the prompts have different numbers of words.
    """
    pairs = replaced_tokens(source, target)
    size = len(source.ids)
    mapper = torch.zeros(size, size)
    row = column = 0
    while row < size and (column < size or not reference):
        if pairs and pairs[0][0][0] == row:
            rows, columns = pairs.pop(0)
            if len(rows) == len(columns):
                mapper[rows, columns] = 1
            else:
                mapper[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1 / len(columns)
            row += len(rows)
            column += len(columns)
            continue
        if reference and not pairs:
            mapper[column, column] = 1
        else:
            # D2: the shift stays; padding that finds no place goes to the last
            mapper[row, min(column, size - 1)] = 1
        row += 1
        column += 1
    return TokenMap(mapper, torch.ones(size))


def refinement_map(source: Tokens, target: Tokens, *, reference: bool = False) -> TokenMap:
    """Words added, dropped or changed: equal tokens correspond, new ones keep their own maps.

    Padding corresponds to padding; `reference` reproduces the released program, whose padding
    corresponds by position, and so to words where the source prompt is the longer one.
    """
    size = len(source.ids)
    mapper, alpha = torch.zeros(size, size), torch.zeros(size)
    matches = _align(source.ids[: source.length], target.ids[: target.length])
    shift = 0 if reference else source.length - target.length  # D2
    tail = ((min(n + shift, size - 1), n) for n in range(target.length, size))
    for row, column in (*matches, *tail):
        mapper[row, column] = 1
        alpha[column] = 1
    return TokenMap(mapper, alpha)


def equalizer(target: Tokens, weights: Iterable[tuple[str, float]]) -> Float[Tensor, " tokens"]:
    """Factor of each target token's map: 1, or the weight given to its word.

    Raises:
        UnknownWordError: a word is not in the target prompt.
    """
    factors = torch.ones(len(target.ids))
    for word, weight in weights:
        factors[find_words(target, word)] = weight
    return factors


def _align(source: Iterable[int], target: Iterable[int]) -> list[tuple[int, int]]:
    """Matching positions of two sequences by Needleman and Wunsch: gap 0, match 1, mismatch -1.

    Where scores tie a gap in the source is preferred to a gap in the target, and both to a pair.
    """
    x, y = list(source), list(target)
    score = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            pair = score[i - 1][j - 1] + (1 if x[i - 1] == y[j - 1] else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], pair)
    matches: list[tuple[int, int]] = []
    i, j = len(x), len(y)
    while i > 0 and j > 0:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            matches.append((i, j))
    return matches[::-1]
