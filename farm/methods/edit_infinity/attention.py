"""Stage: where the target word is looked at, from one teacher-forced pass (spec §5.5)."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from farm.methods.edit_infinity.client import InfinityClient
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.smoothing import ramp_unit
from farm.methods.edit_infinity.stored import read_artifact
from farm.progress import Progress

STAGE = "edit_infinity.attention"


@dataclass(frozen=True)
class WordAttention:
    """The artifact: mean attention over the word's tokens, heads, blocks and scales."""

    map: Float[Tensor, "height width"]

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {"map": self.map.contiguous()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "WordAttention":
        """Inverse of `to_tensors`.

        Raises:
            CorruptArtifactError: the map is missing.
        """
        return read_artifact("attention map", lambda: cls(tensors["map"]), tensors)


def map_size(rows: int, columns: int) -> tuple[int, int]:
    """Cells of the map: about 64 a side, and a whole number of them for each latent cell (D5)."""
    factor = max(1, round(ramp_unit(rows, columns)))
    return rows * factor, columns * factor


def attend(
    codes: SourceCodes,
    text: Float[Tensor, "rows text_width"],
    span: Sequence[int],
    client: InfinityClient,
) -> Generator[Progress, None, WordAttention]:
    """One forward pass over the source's true bits, under the plain source prompt.

    Neither learned prompt nor adapters take part, as released. The released program generates with
    guidance and replaces all that it generates by the source, which sees exactly the same inputs.

    Args:
        codes: the source.
        text: rows of the source prompt alone, the end token's included.
        span: rows of the target word.
        client: the frozen model.
    """
    layout = client.model.schedule(codes.layout)
    found = client.word_attention(text, span, codes.bits, layout, map_size(*layout.latent_size))
    yield Progress(STAGE, 1, 1)
    return WordAttention(found)
