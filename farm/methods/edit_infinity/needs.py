"""What the method needs of a model set: its sizes, its scales and its words. No network here."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Layout(Protocol):
    """The grids of one picture, from one token to the last scale."""

    @property
    def name(self) -> str: ...

    @property
    def num_scales(self) -> int: ...

    @property
    def num_cells(self) -> int:
        """Latent cells over all scales."""
        ...

    @property
    def latent_grids(self) -> Sequence[tuple[int, int]]:
        """Height and width of every scale in latent cells."""
        ...

    @property
    def latent_size(self) -> tuple[int, int]:
        """Of the last scale."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...


@runtime_checkable
class Model(Protocol):
    """Sizes of an Infinity model set."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def depth(self) -> int:
        """Blocks."""
        ...

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward networks."""
        ...

    @property
    def text_width(self) -> int: ...

    @property
    def text_rows(self) -> int:
        """Most text rows, learned ones included."""
        ...

    @property
    def latent_channels(self) -> int:
        """Bits of a latent cell."""
        ...

    def schedule(self, name: str) -> Layout:
        """A layout by its name."""
        ...

    def schedule_for(self, height: int, width: int) -> Layout:
        """The layout whose aspect ratio is nearest to a picture's."""
        ...


@runtime_checkable
class Tokens(Protocol):
    """A text as the text encoder reads it, the end token included."""

    @property
    def prompt(self) -> str: ...

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """First and last character (exclusive) of each token."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Texts to tokens; a text that is too long is an `InvalidPromptError`."""

    def encode(self, prompt: str) -> Tokens: ...
