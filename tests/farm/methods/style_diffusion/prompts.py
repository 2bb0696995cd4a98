"""Prompts as tokens, without a vocabulary."""

from farm.backbones.tokenizer import PromptTokens

SIZE = 16


class PieceTokenizer:
    """Words in pieces of at most four bytes, one character a byte; equal pieces, equal ids."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._known: dict[str, int] = {}

    def encode(self, prompt: str) -> PromptTokens:
        pieces: list[str] = []
        for word in prompt.lower().split():
            text = word.encode().decode("latin-1")
            pieces += [text[n : n + 4] for n in range(0, len(text), 4)]
        ids = [self._known.setdefault(piece, len(self._known) + 2) for piece in pieces]
        padding = [1] * (self._size - 1 - len(ids))
        return PromptTokens(prompt, (0, *ids, *padding), tuple(pieces))


def tokens_of(*prompts: str, size: int = SIZE) -> list[PromptTokens]:
    tokenizer = PieceTokenizer(size)
    return [tokenizer.encode(prompt) for prompt in prompts]
