"""What stage 2 leaves behind, half-way or finished, as tensors that safetensors can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from jaxtyping import Float, Int
from torch import Tensor

from farm.errors import CorruptArtifactError
from farm.masks import Box
from farm.methods.learnable_regions.analysed import stored
from farm.methods.learnable_regions.anchor_net import State
from farm.methods.learnable_regions.rendering import Region

_NETWORK = "anchornet."


@dataclass(frozen=True)
class SearchState:
    """Stage 2 between two batches of drawings. Tensors are never changed.

    Attributes:
        target: CLIP's embedding of the target prompt.
        embeds: the inpainting model's, of the target prompt.
        source_embeds: of the caption.
        uncond_embeds: of the empty prompt.
        saliency: that anchors come from.
        anchors: row and column of each.
        cells: each anchor's and size's box in cells of DINO's grid.
        boxes: the same in pixels of the original.
        misfits: how little each is what is salient.
        table: losses of previews; nan where nothing was drawn.
    """

    target: Float[Tensor, " embed"]
    embeds: Float[Tensor, "tokens width"]
    source_embeds: Float[Tensor, "tokens width"]
    uncond_embeds: Float[Tensor, "tokens width"]
    saliency: Float[Tensor, "rows columns"]
    anchors: Int[Tensor, "anchors 2"]
    cells: Float[Tensor, "anchors sizes 4"]
    boxes: Int[Tensor, "anchors sizes 4"]
    misfits: Float[Tensor, "anchors sizes"]
    table: Float[Tensor, "anchors sizes"]

    def region(self, anchor: int, size: int) -> Region:
        """The region of an anchor with a size."""
        return Region(anchor, size, Box(*(int(v) for v in self.boxes[anchor, size])))

    def misfit(self, region: Region) -> float:
        """How little a region is what is salient; 0 to 1."""
        return self.misfits[region.anchor, region.size].item()

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "SearchState":
        """Inverse of `to_tensors`.

        Raises:
            CorruptArtifactError: a tensor is missing, or they do not belong together.
        """
        found = {field.name: stored(tensors, field.name) for field in fields(cls)}
        table, cells, boxes = (found[name].shape for name in ("table", "cells", "boxes"))
        if not table == cells[:2] == boxes[:2]:
            raise CorruptArtifactError(
                f"the stored search has a table of {tuple(table)} and boxes of {tuple(boxes)}: "
                "delete it and run it again"
            )
        return cls(**found)


@dataclass(frozen=True)
class Search:
    """The artifact of stage 2: where this prompt's edit may be, and how large.

    Attributes:
        state: anchors, boxes and the table.
        chosen: anchor and size of each region that goes on; different boxes.
        before: log-probabilities of sizes before training.
        after: and after it.
        curve: the loss of each training iteration.
        network: AnchorNet's parameters.
        drawn: regions that were drawn for the table.
    """

    state: SearchState
    chosen: Int[Tensor, "regions 2"]
    before: Float[Tensor, "anchors sizes"]
    after: Float[Tensor, "anchors sizes"]
    curve: Float[Tensor, " iterations"]
    network: State
    drawn: Int[Tensor, ""]

    @property
    def regions(self) -> list[Region]:
        """The regions that go on."""
        return [self.state.region(anchor, size) for anchor, size in self.chosen.tolist()]

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        own = {name: getattr(self, name).contiguous() for name in _OWN}
        return self.state.to_tensors() | own | network_tensors(self.network)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Search":
        """Inverse of `to_tensors`.

        Raises:
            CorruptArtifactError: a tensor is missing, or they do not belong together.
        """
        return cls(
            state=SearchState.from_tensors(tensors),
            network=network_of(tensors),
            **{name: stored(tensors, name) for name in _OWN},
        )


_OWN = ("chosen", "before", "after", "curve", "drawn")


def network_tensors(network: State) -> dict[str, Tensor]:
    """AnchorNet's parameters as tensors of an artifact; `network_of` reads them back."""
    return {_NETWORK + name: tensor for name, tensor in network.items()}


def network_of(tensors: Mapping[str, Tensor]) -> State:
    """AnchorNet's parameters among the tensors of a search, e.g. to start another from."""
    return {
        name.removeprefix(_NETWORK): tensor
        for name, tensor in tensors.items()
        if name.startswith(_NETWORK)
    }
