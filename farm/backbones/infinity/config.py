"""Sizes of an Infinity transformer; all of them can be read off a state dict (`state_keys`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InfinityConfig:
    """Sizes of the transformer.

    Attributes:
        width: C.
        depth: blocks.
        heads: of all attention but the text pooling's.
        hidden: width inside the feed-forward networks.
        token_bits: bits of one token: the autoencoder's channels, four times that on patches.
        text_width: of the text encoder's rows.
        text_rows: rows of the unconditional text.
        pool_heads: heads of the text pooling: text width / 128 in the released models.
        levels: rows of the scales' embedding.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    token_bits: int
    text_width: int
    text_rows: int = 512
    pool_heads: int = 1
    levels: int = 15

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def released_hidden(width: int) -> int:
    """Width of the released feed-forward networks: 4C rounded, half to even, to 256."""
    return round(4 * width / 256) * 256


def released(width: int, depth: int, heads: int, token_bits: int) -> InfinityConfig:
    """A size of the released family (spec §1): 2B is `released(2048, 32, 16, 32)`."""
    text_width = 2048
    pool_heads = text_width // (64 if width > 4096 else 128)
    return InfinityConfig(
        width=width,
        depth=depth,
        heads=heads,
        hidden=released_hidden(width),
        token_bits=token_bits,
        text_width=text_width,
        pool_heads=pool_heads,
    )
