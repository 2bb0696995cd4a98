"""The target word in the source prompt, and the tokens that it became (spec §5.5)."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from farm.errors import UnknownWordError
from farm.methods.edit_infinity.needs import Tokens

_EDGES = string.punctuation


@dataclass(frozen=True)
class Word:
    """A word of a text: its characters without punctuation at its ends."""

    text: str
    start: int
    end: int


def words_of(prompt: str) -> list[Word]:
    """What stands between white space, without punctuation around it; pure punctuation is none."""
    found: list[Word] = []
    for match in re.finditer(r"\S+", prompt):
        raw = match[0]
        bare = raw.strip(_EDGES)
        if bare:
            start = match.start() + raw.index(bare)
            found.append(Word(bare, start, start + len(bare)))
    return found


def find_word(
    tokens: Tokens, phrase: str, occurrence: int | None = None, *, last: bool = False
) -> list[int]:
    """Positions of the tokens of one occurrence of a word, or of some words in a row.

    Case and punctuation do not matter. Of a list with commas the first entry counts.

    Args:
        tokens: of the source prompt.
        phrase: what to look for.
        occurrence: which one, counted from 1; None: see `last`.
        last: without an occurrence take the last, as the released code does, not the first (D7).

    Raises:
        UnknownWordError: the prompt does not have it, or not so often.
    """
    first = next((part for part in phrase.split(",") if part.strip()), phrase)
    words = words_of(tokens.prompt)
    wanted = [word.text.casefold() for word in words_of(first)]
    starts = _occurrences([word.text.casefold() for word in words], wanted)
    if not starts:
        known = ", ".join(dict.fromkeys(word.text for word in words))
        raise UnknownWordError(
            f"{first.strip()!r} is not in the source prompt {tokens.prompt!r}: use one of its "
            f"words ({known})"
        )
    number = occurrence or (len(starts) if last else 1)
    if number > len(starts):
        raise UnknownWordError(
            f"{first.strip()!r} occurs {len(starts)} times in the source prompt {tokens.prompt!r}, "
            f"and occurrence {number} is asked for: ask for 1 to {len(starts)}"
        )
    chosen = words[starts[number - 1] : starts[number - 1] + len(wanted)]
    return _positions(tokens, chosen[0].start, chosen[-1].end)


def _occurrences(words: Sequence[str], wanted: Sequence[str]) -> list[int]:
    size = len(wanted)
    if size == 0:
        return []
    return [n for n in range(len(words) - size + 1) if list(words[n : n + size]) == list(wanted)]


def _positions(tokens: Tokens, start: int, end: int) -> list[int]:
    """Tokens that share a character with the span, or are the white space right before it."""
    found: list[int] = []
    for position, (first, last) in enumerate(tokens.spans):
        overlaps = first < end and last > start
        leads = first < last <= start and not tokens.prompt[first:start].strip()
        if overlaps or leads:
            found.append(position)
    if not found:
        raise UnknownWordError(
            f"{tokens.prompt[start:end]!r} has no token of its own in {tokens.prompt!r}: write it "
            "with plain letters"
        )
    return found
