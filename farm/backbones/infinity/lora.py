"""Low-rank changes of the feed-forward networks, one of its own for each sample of a batch.

`y = W x + b + s B A x`. Adapters are data of the call: edits of different pictures share a batch,
and the frozen weights stay as they are.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

Tokens = Float[Tensor, "batch tokens channels"]

_PRIME = 1_000_003


@dataclass(frozen=True)
class LoraShape:
    """Sizes of the adapters of one transformer: fc1 (width to hidden) and fc2 of every block.

    Flat vectors hold fc1's A of all blocks, then fc1's B, fc2's A, fc2's B.
    """

    depth: int
    width: int
    hidden: int
    rank: int

    @property
    def parts(self) -> tuple[tuple[int, int, int], ...]:
        """Shapes of the four stacks: A is (rank, in), B is (out, rank)."""
        return (
            (self.depth, self.rank, self.width),
            (self.depth, self.hidden, self.rank),
            (self.depth, self.rank, self.hidden),
            (self.depth, self.width, self.rank),
        )

    @cached_property
    def size(self) -> int:
        """Numbers in one sample's adapters."""
        return sum(a * b * c for a, b, c in self.parts)


@dataclass(frozen=True)
class Dropout:
    """Dropout of the adapters' inputs, from numbers that the sample's seed alone decides.

    They are drawn where they are used: a GPU's are others than a CPU's.
    """

    probability: float
    seeds: Int[Tensor, " batch"]

    def __call__(self, x: Tokens, layer: int) -> Tokens:
        """`x` with elements dropped; a repeated call with the same layer drops the same."""
        kept = torch.empty(x.shape, device=x.device)
        for row, seed in zip(kept, self._numbers, strict=True):
            generator = torch.Generator(x.device).manual_seed((seed * _PRIME + layer) % 2**63)
            row.bernoulli_(1 - self.probability, generator=generator)
        return x * (kept / (1 - self.probability)).to(x.dtype)

    @cached_property
    def _numbers(self) -> list[int]:
        """Read once: it waits for the device."""
        return self.seeds.tolist()


@dataclass(frozen=True)
class LayerLora:
    """Adapter of one linear layer."""

    a: Float[Tensor, "batch rank channels_in"]
    b: Float[Tensor, "batch channels_out rank"]
    scale: Float[Tensor, " batch"]
    dropout: Dropout | None
    number: int
    """Of the layer, for the dropout."""

    def __call__(self, x: Tokens) -> Float[Tensor, "batch tokens channels_out"]:
        """The change: s B A x."""
        if self.dropout is not None:
            x = self.dropout(x, self.number)
        low = torch.bmm(x, self.a.to(x.dtype).transpose(1, 2))
        change = torch.bmm(low, self.b.to(x.dtype).transpose(1, 2))
        return change * self.scale[:, None, None].to(x.dtype)


@dataclass(frozen=True)
class Lora:
    """Adapters of a batch.

    Attributes:
        stacks: fc1's A, fc1's B, fc2's A, fc2's B; each (batch, blocks, …).
        scale: alpha / rank of each sample.
        dropout: while training.
    """

    stacks: tuple[Tensor, ...]
    scale: Float[Tensor, " batch"]
    dropout: Dropout | None = None

    @classmethod
    def unflatten(
        cls,
        flat: Float[Tensor, "batch numbers"],
        shape: LoraShape,
        scale: Float[Tensor, " batch"],
        dropout: Dropout | None = None,
    ) -> "Lora":
        """Adapters from one vector per sample; gradients flow back into it."""
        sizes = [a * b * c for a, b, c in shape.parts]
        pieces = flat.split(sizes, dim=1)
        stacks = tuple(p.unflatten(1, s) for p, s in zip(pieces, shape.parts, strict=True))
        return cls(stacks, scale, dropout)

    def layers(self, block: int) -> tuple[LayerLora, LayerLora]:
        """Adapters of one block's fc1 and fc2."""
        a1, b1, a2, b2 = (stack[:, block] for stack in self.stacks)
        return (
            LayerLora(a1, b1, self.scale, self.dropout, 2 * block),
            LayerLora(a2, b2, self.scale, self.dropout, 2 * block + 1),
        )

    def repeated(self, times: int) -> "Lora":
        """The same adapters for each of `times` copies of the batch."""
        return Lora(
            tuple(stack.repeat(times, *[1] * (stack.dim() - 1)) for stack in self.stacks),
            self.scale.repeat(times),
            self.dropout,
        )
