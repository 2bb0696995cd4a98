"""CLIP's byte-pair tokenizer by the `tokenizers` library alone: importable where no network is.

Requests are checked, and words found in prompts, long before a text encoder is at hand; a trainer
process that imports this stays free of transformers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreSequence

from farm.errors import InvalidPromptError, ModelSetError

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as token ids, padded to the encoder's length."""

    prompt: str
    ids: tuple[int, ...]
    """`[start, pieces…, end, padding…]`, one entry per position of the encoder."""
    pieces: tuple[str, ...]
    """Decoded text of each piece between start and end."""

    @property
    def length(self) -> int:
        """Positions from the start token to the first end token, both counted."""
        return len(self.pieces) + 2


class PromptTokenizer:
    """Prompts to ids of one model set's text encoder.

    Args:
        folder: a `tokenizer` folder in Hugging Face layout (tokenizer.json, or vocab.json and
            merges.txt). Its `tokenizer_config.json` or `special_tokens_map.json` may name the token
            that fills up: the end token in Stable Diffusion 1, "!" in 2, whose text encoder was
            trained so.
        max_tokens: positions of the text encoder, start and end included.

    Raises:
        ModelSetError: the folder holds no tokenizer.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = _load(folder)
        self._start = self._id(_START, folder)
        self._end = self._id(_END, folder)
        self._padding = self._id(_padding_token(folder), folder)

    def encode(self, prompt: str) -> PromptTokens:
        """Token ids of a prompt; the empty prompt is allowed (guidance needs it).

        Raises:
            InvalidPromptError: the prompt has more tokens than the encoder has positions.
        """
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        room = self.max_tokens - 2
        if len(encoding.ids) > room:
            kept = prompt[: encoding.offsets[room][0]].rstrip()
            raise InvalidPromptError(
                f"the prompt has {len(encoding.ids)} tokens and the text encoder takes {room}: "
                f"shorten it; what fits is {kept!r}"
            )
        padding = self.max_tokens - 2 - len(encoding.ids)
        pieces = tuple(piece.replace(_WORD_END, "") for piece in encoding.tokens)
        rest = (self._end, *[self._padding] * padding)
        return PromptTokens(prompt, (self._start, *encoding.ids, *rest), pieces)

    def _id(self, token: str, folder: Path) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelSetError(f"{folder}: the tokenizer has no {token!r}; is it CLIP's?")
        return found


def _padding_token(folder: Path) -> str:
    """As transformers finds it: a map of special tokens decides unless a newer config needs none.

    Stable Diffusion 2's config names the end token, and its map the "!" it was trained with.
    """
    config = _table(folder / "tokenizer_config.json")
    tables = [config]
    if "added_tokens_decoder" not in config:
        tables.append(_table(folder / "special_tokens_map.json"))
    named: object = _END
    for table in tables:
        named = table.get("pad_token", named)
    return str(named["content"] if isinstance(named, dict) else named or _END)


def _table(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelSetError(f"{path} is no JSON ({error}): fetch the tokenizer again") from error


def _load(folder: Path) -> Tokenizer:
    whole, vocabulary, merges = (folder / n for n in ("tokenizer.json", "vocab.json", "merges.txt"))
    if whole.is_file():
        return Tokenizer.from_file(str(whole))
    if vocabulary.is_file() and merges.is_file():
        model = BPE.from_file(
            str(vocabulary), str(merges), end_of_word_suffix=_WORD_END, unk_token=_END
        )
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = Sequence([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
        tokenizer.pre_tokenizer = PreSequence(
            [Split(Regex(_PATTERN), "removed", invert=True), ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = ByteLevelDecoder()
        return tokenizer
    raise ModelSetError(
        f"{folder} holds neither tokenizer.json nor vocab.json with merges.txt: "
        "copy the tokenizer folder of the checkpoint there"
    )
