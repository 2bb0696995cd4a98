"""What stage 1 leaves behind, as tensors that safetensors can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from jaxtyping import Float, Shaped
from torch import Tensor

from farm.errors import CorruptArtifactError


@dataclass(frozen=True)
class Analysis:
    """All that any edit of this picture and caption needs of its source.

    Attributes:
        attention: DINO's, of [CLS] to each cell, by head.
        features: DINO's, of each cell.
        embed: CLIP's of the picture; not of unit length, as are the following.
        tokens: CLIP's of one layer, for structure.
        views: CLIP's of the picture's views.
        text: CLIP's of the caption.
    """

    attention: Float[Tensor, "heads rows columns"]
    features: Float[Tensor, "width rows columns"]
    embed: Float[Tensor, " embed"]
    tokens: Float[Tensor, "places token_width"]
    views: Float[Tensor, "views embed"]
    text: Float[Tensor, " embed"]

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Analysis":
        """Inverse of `to_tensors`.

        Raises:
            CorruptArtifactError: a tensor is missing.
        """
        return cls(**{field.name: stored(tensors, field.name) for field in fields(cls)})


def stored(tensors: Mapping[str, Tensor], name: str) -> Shaped[Tensor, "..."]:
    """A tensor of an artifact.

    Raises:
        CorruptArtifactError: it is not there.
    """
    if name not in tensors:
        raise CorruptArtifactError(
            f"the stored stage has no {name!r}, only {sorted(tensors)}: delete it and run it again"
        )
    return tensors[name]
