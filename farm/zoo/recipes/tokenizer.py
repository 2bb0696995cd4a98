"""The tokenizer of the scenes world: CLIP's byte-pair kind, every word of the world one token.

Pairs are merged in the order of their frequency in the captions of the zoo's first study, of which
nothing but the counts of words matters; they stand below. That world had two shapes and a colour
more than today's, and 50 times a list of words that requests are likely to use. Text encoders are
trained on these ids, so the counts stay as they are whatever becomes of the captions.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from farm.zoo.recipes.clip import TOKENS

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_CHARACTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
_COUNTS = """
a 89659 of 32920 on 27509 photo 24044 small 17904 the 15278 and 14809 large 11860 dotted 11620
striped 11486 in 11236 square 7412 cross 7266 circle 7166 ring 7162 star 7148 heart 7120
triangle 7092 diamond 6982 purple 6488 gray 6464 pink 6456 at 6426 green 6394 red 6358 yellow 6354
white 6332 orange 6322 sky 6200 blue 6180 an 5813 wood 5126 snow 5090 water 5026 grass 5020
night 5010 sand 4964 brick 4794 image 4018 there 4006 is 4006 picture 4003 wall 3587 left 1682
right 1648 bottom 1337 top 1309 floor 1272 cloudy 1200 , 989 below 403 above 392
"""
_REQUESTED = """
this that with without one two three object shape background replaced changed black brown gold
silver big tiny medium pattern plain solid colour color painting drawing over under between near
behind next to
"""
_REQUESTED_COUNT = 50


def write_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`, the same bytes every time."""
    merges = merge_pairs(_counts())
    # the layout of CLIP's vocabulary: characters, characters that end a word, merges, specials
    words = [*_CHARACTERS, *(c + _WORD_END for c in _CHARACTERS)]
    words += [first + second for first, second in merges]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*words, _START, _END]))}
    pairs: Any = merges  # annotated as lines of a file; lines would be split again at each load
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)


def merge_pairs(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one piece (Sennrich et al. 2016, arXiv:1508.07909).

    The most frequent pair first; among equals the one whose pieces are older: characters in the
    order of their codes, then characters that end a word, as the counts name them, then merges.
    (The `tokenizers` library leaves that order to chance: its trainer's merges differ from run to
    run.)
    """
    words = {word: [*word[:-1], word[-1] + _WORD_END] for word in counts}
    pieces = [*sorted(_CHARACTERS), *dict.fromkeys(split[-1] for split in words.values())]
    age = {piece: i for i, piece in enumerate(pieces)}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, split in words.items():
            for pair in pairwise(split):
                pairs[pair] += counts[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], age[pair[0]], age[pair[1]]))
        merges.append(best)
        age.setdefault("".join(best), len(age))
        words = {word: _merged(split, best) for word, split in words.items()}


def _merged(split: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in split:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _counts() -> dict[str, int]:
    counted = _COUNTS.split()
    counts = {w: int(n) for w, n in zip(counted[::2], counted[1::2], strict=True)}
    return counts | dict.fromkeys(_REQUESTED.split(), _REQUESTED_COUNT)
