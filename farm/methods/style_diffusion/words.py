"""Words of a prompt and the tokens that they became (StyleDiffusion spec §7)."""

import string
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Protocol, runtime_checkable

from farm.errors import InvalidPromptError, UnknownWordError

_UNKNOWN = "<|endoftext|>"  # stands for one byte that the vocabulary lacks
_EDGES = string.punctuation

_FUNCTION_WORDS = """
a an the this that these those its his her their it there and or but as for is are was were be being
of on in at by with without from to into onto over under above below behind beside near next between
photo picture image painting drawing scene
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that show nothing of their own: their attention lies all over the picture."""


@runtime_checkable
class Tokens(Protocol):
    """A prompt as the text encoder reads it: `[start, pieces…, end, end, …]`."""

    @property
    def prompt(self) -> str: ...

    @property
    def ids(self) -> Sequence[int]:
        """One id per position of the encoder."""
        ...

    @property
    def pieces(self) -> Sequence[str]:
        """Text of the tokens between start and end, one character per UTF-8 byte."""
        ...

    @property
    def length(self) -> int:
        """Positions from the start token to the first end token, both counted."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Prompts to tokens; a prompt that is too long is an `InvalidPromptError`."""

    def encode(self, prompt: str) -> Tokens: ...


def words_of(prompt: str) -> list[str]:
    """The words of a prompt: what stands between white space."""
    return prompt.split()  # D5


def word_positions(tokens: Tokens) -> list[list[int]]:
    """For each word of the prompt, the positions of its tokens; the start token is position 0.

    Walks over the pieces and gives each to the word whose bytes it covers.

    Raises:
        InvalidPromptError: a piece crosses the border of two words.
    """
    positions: list[list[int]] = []
    piece = 0
    for word in words_of(tokens.prompt):
        missing = len(unicodedata.normalize("NFC", word).lower().encode())
        first = piece
        while missing > 0 and piece < len(tokens.pieces):
            text = tokens.pieces[piece]
            missing -= 1 if text == _UNKNOWN else len(text)
            piece += 1
        if missing != 0:
            raise _unwalkable(tokens.prompt, word)
        positions.append([n + 1 for n in range(first, piece)])
    if piece != len(tokens.pieces):
        raise _unwalkable(tokens.prompt, words_of(tokens.prompt)[-1])
    return positions


def find_words(tokens: Tokens, phrase: str) -> list[int]:
    """Positions of the tokens of all occurrences of a word, or of some words in a row.

    As written if that occurs; else in any case and without punctuation at its ends.

    Raises:
        UnknownWordError: the prompt does not contain it.
    """
    words = words_of(tokens.prompt)
    found = _occurrences(words, words_of(phrase))
    if not found:
        found = _occurrences([_plain(w) for w in words], [_plain(w) for w in words_of(phrase)])
    if not found:
        raise UnknownWordError(
            f"{phrase!r} is not in the prompt {tokens.prompt!r}: "
            f"use one of its words ({', '.join(dict.fromkeys(words))})"
        )
    positions = word_positions(tokens)
    return sorted({token for n in found for token in positions[n]})


def changed_words(source: Sequence[str], target: Sequence[str]) -> tuple[list[int], list[int]]:
    """Which words of each prompt (counted from 0) the other has not.

    Prompts with equally many words are compared place by place, others are aligned first.
    """
    if len(source) == len(target):
        pairs = zip(source, target, strict=True)
        places = [n for n, (old, new) in enumerate(pairs) if old != new]
        return places, places
    matcher = SequenceMatcher(None, source, target, autojunk=False)
    old: list[int] = []
    new: list[int] = []
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if tag != "equal":
            old += range(old_start, old_end)
            new += range(new_start, new_end)
    return old, new


def changes_noun(source_prompt: str, target_prompt: str) -> bool:
    """Whether a word for a thing changes, comes or goes, rather than one that describes a thing.

    In English a thing's word ends its phrase: what follows is a function word, punctuation or
    nothing ("a red *ring* on the *sand*"), while what describes comes before another word that
    shows something. A rule of thumb; requests may say otherwise.
    """
    prompts = words_of(source_prompt), words_of(target_prompt)
    places = changed_words(*prompts)
    return any(
        _ends_phrase(words, n) for words, found in zip(prompts, places, strict=True) for n in found
    )


def changed_tokens(
    source: Tokens, target: Tokens, *, content: bool = False
) -> tuple[list[int], list[int]]:
    """Positions of the tokens of `changed_words`, in each prompt.

    Args:
        source: tokens of the source prompt.
        target: tokens of the target prompt.
        content: leave out words that show nothing ("in the" became "on the"), unless no other
            word of that prompt changed.
    """
    changed = changed_words(words_of(source.prompt), words_of(target.prompt))
    if content:
        old, new = (
            content_places(tokens, places) or places
            for tokens, places in zip((source, target), changed, strict=True)
        )
        changed = old, new
    positions = (word_positions(source), word_positions(target))
    old, new = (
        [n for place in places for n in where[place]]
        for places, where in zip(changed, positions, strict=True)
    )
    return old, new


def content_places(tokens: Tokens, places: Sequence[int]) -> list[int]:
    """Those of some words of a prompt (counted from 0) that show something."""
    words = words_of(tokens.prompt)
    return [n for n in places if _plain(words[n]) not in FUNCTION_WORDS]


def kept_content(source: Tokens, target: Tokens) -> list[tuple[list[int], list[int]]]:
    """Token positions, in each prompt, of every word that both have and that shows something."""
    old, new = words_of(source.prompt), words_of(target.prompt)
    changed = changed_words(old, new)
    kept = [
        [n for n in range(len(words)) if n not in places]
        for words, places in zip((old, new), changed, strict=True)
    ]
    shows = set(content_places(source, kept[0]))
    positions = word_positions(source), word_positions(target)
    return [
        (positions[0][mine], positions[1][theirs])
        for mine, theirs in zip(*kept, strict=True)
        if mine in shows
    ]


def replaced_tokens(source: Tokens, target: Tokens) -> list[tuple[list[int], list[int]]]:
    """Token positions of each word that was replaced by another, in source and target prompt.

    Raises:
        InvalidPromptError: the prompts have different numbers of words.
    """
    old, new = words_of(source.prompt), words_of(target.prompt)
    places, others = changed_words(old, new)
    if len(old) != len(new):
        raise InvalidPromptError(
            f"edit_type 'replace' changes words one for one, but {source.prompt!r} has {len(old)} "
            f"words and {target.prompt!r} has {len(new)} ({_listed(old, places)} became "
            f"{_listed(new, others)}): edit_type 'refine' fits these prompts; or use the same "
            "number of words"
        )
    old_positions, new_positions = word_positions(source), word_positions(target)
    return [(old_positions[n], new_positions[n]) for n in places]


def _ends_phrase(words: Sequence[str], place: int) -> bool:
    if _plain(words[place]) in FUNCTION_WORDS:
        return False
    last = place + 1 == len(words) or words[place][-1] in _EDGES
    return last or _plain(words[place + 1]) in FUNCTION_WORDS


def _listed(words: Sequence[str], places: Sequence[int]) -> str:
    return ", ".join(repr(words[n]) for n in places) or "nothing"


def _occurrences(words: Sequence[str], phrase: Sequence[str]) -> set[int]:
    """Places of all words that belong to an occurrence of `phrase`."""
    size = len(phrase)
    if size == 0 or not any(phrase):
        return set()
    starts = [n for n in range(len(words) - size + 1) if list(words[n : n + size]) == list(phrase)]
    return {start + n for start in starts for n in range(size)}


def _plain(word: str) -> str:
    return word.casefold().strip(_EDGES)


def _unwalkable(prompt: str, word: str) -> InvalidPromptError:
    return InvalidPromptError(
        f"the tokens of the prompt {prompt!r} cannot be told apart around {word!r}: "
        "write that word with plain letters"
    )
