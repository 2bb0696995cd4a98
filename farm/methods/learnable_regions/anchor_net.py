"""AnchorNet: from the features around an anchor to probabilities of its region's size."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from farm.errors import InvalidRequestError
from farm.methods.learnable_regions.config import NetworkConfig, Quirks
from farm.methods.learnable_regions.roi import roi_align

State = dict[str, Tensor]
_CORNER_SCALE = 0.125


@dataclass(frozen=True)
class RegionFeatures:
    """What AnchorNet sees of one picture; everything in cells of DINO's grid.

    Attributes:
        features: DINO's, per cell.
        saliency: that anchors come from.
        boxes: of each anchor and size.
        centred: whether cell k covers k to k + 1 in `boxes`, or lies at k.
    """

    features: Float[Tensor, "width rows columns"]
    saliency: Float[Tensor, "rows columns"]
    boxes: Float[Tensor, "anchors sizes 4"]
    centred: bool = True


class AnchorNet(nn.Module):
    """Projection of DINO's features, then two convolutions and two linear layers (spec §1.6).

    The head's first convolution sees the features of all of an anchor's sizes side by side.

    Args:
        width: channels of DINO's features.
        num_sizes: sizes that it chooses among.
        config: its layers.
        quirks: how features are cut out and put together.
    """

    def __init__(
        self, width: int, num_sizes: int, config: NetworkConfig, quirks: Quirks | None = None
    ) -> None:
        super().__init__()
        self.config, self.quirks = config, quirks or Quirks()
        channels = config.channels + config.saliency
        self.projection = nn.Conv2d(width, config.channels, 1)
        self.head = nn.Sequential(
            nn.Conv2d(num_sizes * channels, config.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(config.hidden, config.squeezed, 1),
            nn.ReLU(),
            nn.Flatten(1),
            nn.Linear(config.squeezed * config.roi_size**2, config.neurons),
            nn.ReLU(),
            nn.Linear(config.neurons, num_sizes),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, seen: RegionFeatures) -> Float[Tensor, "anchors sizes"]:
        """Log-probabilities of each anchor's sizes."""
        projected = self.projection(seen.features[None])[0]
        if self.config.saliency:  # D4
            projected = torch.cat([projected, seen.saliency[None]])
        return self.head(self.stacked(projected, seen))

    def stacked(
        self, projected: Float[Tensor, "channels rows columns"], seen: RegionFeatures
    ) -> Float[Tensor, "anchors size_channels roi roi"]:
        """Features of each anchor's boxes, size by size."""
        anchors, sizes = seen.boxes.shape[:2]
        corner = self.quirks.corner_roi
        regions = roi_align(
            projected,
            seen.boxes.flatten(0, 1),
            self.config.roi_size,
            scale=_CORNER_SCALE if corner else 1.0,
            aligned=seen.centred and not corner,
        ).unflatten(0, (anchors, sizes))
        if self.quirks.scrambled_roi:  # Q3: rows of anchors, read where sizes come first
            regions = regions.transpose(0, 1).flatten(0, 1).unflatten(0, (anchors, sizes))
        return regions.flatten(1, 2)


def build_anchor_net(
    width: int,
    num_sizes: int,
    config: NetworkConfig,
    quirks: Quirks,
    generator: torch.Generator,
    start: Mapping[str, Tensor] | None = None,
) -> AnchorNet:
    """An AnchorNet with fresh parameters, or with those of an artifact.

    Args:
        width: channels of DINO's features.
        num_sizes: sizes that it chooses among.
        config: its layers.
        quirks: with Q5 the projection is fresh in any case, and is not trained.
        generator: decides fresh parameters.
        start: parameters of a trained network.

    Raises:
        InvalidRequestError: `start` belongs to another network.
    """
    with torch.device("meta"):  # torch's own initialisation would draw from the global generator
        network = AnchorNet(width, num_sizes, config, quirks)
    network = network.to_empty(device="cpu")
    initialise(network, generator)
    if start is not None:
        fresh = network.state_dict()
        kept = {n: t for n, t in start.items() if not (quirks.unsaved_projection and _projects(n))}
        needed = {n for n in fresh if not (quirks.unsaved_projection and _projects(n))}
        fits = needed == kept.keys() and all(kept[n].shape == fresh[n].shape for n in kept)
        if not fits:
            raise InvalidRequestError(
                f"anchornet: it has {_sizes_of(start)} sizes and the layers {sorted(start)}, "
                f"expected {num_sizes} sizes of features {width} wide: name one that was trained "
                "with these networks, sizes and layers, or train afresh"
            )
        network.load_state_dict(fresh | kept)
    network.projection.requires_grad_(not quirks.unsaved_projection)
    return network


def _projects(name: str) -> bool:
    return name.startswith("projection.")


def _sizes_of(state: Mapping[str, Tensor]) -> int:
    last = state.get("head.7.bias")
    return 0 if last is None else len(last)


def initialise(network: AnchorNet, generator: torch.Generator) -> None:
    """Uniform in ±1/sqrt(fan in): torch's own default, drawn from `generator`."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)


def state_of(network: AnchorNet) -> State:
    """A copy of the parameters; with Q5 the projection is not kept."""
    return {
        name: tensor.detach().clone()
        for name, tensor in network.state_dict().items()
        if not (network.quirks.unsaved_projection and _projects(name))
    }
