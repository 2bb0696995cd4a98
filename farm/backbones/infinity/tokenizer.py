"""T5's tokenizer by the `tokenizers` library alone: importable where no network is."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from farm.errors import InvalidPromptError, ModelSetError

END = "</s>"


@dataclass(frozen=True)
class TextTokens:
    """A text as the encoder reads it, the end token included.

    Attributes:
        prompt: the text.
        ids: of its tokens.
        spans: first and last character (exclusive) of each token in the text; the end token's is
            empty.
    """

    prompt: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """Texts to ids of one model set's T5.

    Args:
        folder: holds the checkpoint's tokenizer.json.
        max_tokens: most tokens of a text, the end token included.

    Raises:
        ModelSetError: the folder holds no tokenizer, or one without an end token.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelSetError(f"{path} is missing: copy the tokenizer of the T5 checkpoint there")
        self.max_tokens = max_tokens
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        end = self._tokenizer.token_to_id(END)
        if end is None:
            raise ModelSetError(f"{path}: the tokenizer has no {END!r}; is it T5's?")
        self._end = int(end)

    def encode(self, prompt: str) -> TextTokens:
        """Ids of a text and the end token.

        Raises:
            InvalidPromptError: the text has more tokens than fit.
        """
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        room = self.max_tokens - 1
        if len(encoding.ids) > room:
            kept = prompt[: encoding.offsets[room][0]].rstrip()
            raise InvalidPromptError(
                f"the prompt has {len(encoding.ids)} tokens and {room} fit: shorten it; what fits "
                f"is {kept!r}"
            )
        end = (len(prompt), len(prompt))
        return TextTokens(prompt, (*encoding.ids, self._end), (*encoding.offsets, end))
