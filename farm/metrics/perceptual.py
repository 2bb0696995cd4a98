"""Distances of two pictures by what networks see in them: LPIPS, and its form without heads."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float
from lpips import LPIPS
from torch import Tensor, nn
from transformers import CLIPVisionModel

from farm.errors import ModelSetError
from farm.metrics.captured import captured
from farm.metrics.distance import InputRange
from farm.metrics.normalisation import CLIP

LpipsTrunk = Literal["alex", "squeeze", "vgg"]


class LearnedDistance(nn.Module):
    """LPIPS version 0.1 (arXiv:1801.03924): trained heads on a frozen classifier's features.

    Differentiable with respect to both pictures.

    Args:
        network: built by `build_lpips`.
        name: for example "lpips-alex".
        input_range: what the network is fed; "unit" becomes part of the name.
    """

    def __init__(self, network: LPIPS, *, name: str, input_range: InputRange = "symmetric") -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.name = name if input_range == "symmetric" else f"{name}-unit"
        self._symmetric = input_range == "symmetric"

    def forward(
        self,
        first: Float[Tensor, "batch 3 height width"],
        second: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        distance: Tensor = self.network(first, second, normalize=self._symmetric)
        return distance[:, 0, 0, 0]


def build_lpips(trunk: LpipsTrunk, weights: Mapping[str, Float[Tensor, "..."]]) -> LPIPS:
    """LPIPS with its trained heads, which its package carries, on a classifier's features.

    Args:
        trunk: architecture of the classifier.
        weights: torchvision's state dict of it; only `features.*` is used.

    Raises:
        ModelSetError: the weights are another network's.
    """
    # the package draws weights that are replaced below, and asks torchvision in an old way
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(category=UserWarning):
        warnings.simplefilter("ignore")
        network = LPIPS(net=trunk, pnet_rand=True, verbose=False)
    for name, parameter in network.net.named_parameters():
        # slice2.4.bias of the package is features.4.bias of the classifier
        source = "features." + name.partition(".")[2]
        found = weights.get(source)
        if found is None or found.shape != parameter.shape:
            shape = None if found is None else tuple(found.shape)
            raise ModelSetError(
                f"the weights for LPIPS's {trunk} trunk have {source} of shape {shape}, expected "
                f"{tuple(parameter.shape)}: fetch torchvision's state dict of that network"
            )
        parameter.data = found.detach().to(parameter, copy=True)
    return network


class FeatureDistance(nn.Module):
    """LPIPS without heads, on any network's feature maps: never called LPIPS.

    Per layer the squared difference of the unit-length feature vectors at each place, averaged over
    places; then the mean over layers, so 0 to 4 ("baseline" of arXiv:1801.03924 §3, there summed).
    Differentiable with respect to both pictures.

    Args:
        maps: pictures in [0, 1] to feature maps (batch, channels, height, width), by layer.
        trunk: the network in `maps`, taken over: frozen, in eval mode.
        name: the network's; the distance is called "features-<name>".
    """

    def __init__(
        self, maps: Callable[[Tensor], Sequence[Tensor]], trunk: nn.Module, *, name: str
    ) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.name = f"features-{name}"
        self._maps = maps

    def forward(
        self,
        first: Float[Tensor, "batch 3 height width"],
        second: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        layers: list[Tensor] = []
        for a, b in zip(self._maps(first), self._maps(second), strict=True):
            change = F.normalize(a, dim=1) - F.normalize(b, dim=1)
            layers.append(change.square().sum(dim=1).mean(dim=(1, 2)))  # (batch,)
        return torch.stack(layers).mean(dim=0)


def autoencoder_distance(vae: AutoencoderKL, *, name: str) -> FeatureDistance:
    """By the outputs of an autoencoder's encoder blocks."""
    encoder = vae.get_submodule("encoder")
    blocks = encoder.get_submodule("down_blocks")
    assert isinstance(blocks, nn.ModuleList)

    def maps(image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        with captured(list(blocks)) as outputs:
            encoder(image * 2 - 1)
        return outputs

    return FeatureDistance(maps, encoder, name=name)


def clip_distance(tower: CLIPVisionModel, *, name: str) -> FeatureDistance:
    """By the patches' hidden states after each block of a CLIP image tower, as maps."""
    size = tower.config.image_size
    assert isinstance(size, int), "CLIP takes square pictures"

    def maps(image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        if image.shape[-2:] != (size, size):
            image = F.interpolate(image, (size, size), mode="bicubic", antialias=True)
        output = tower(pixel_values=CLIP.normalised(image), output_hidden_states=True)
        states = output.hidden_states
        assert states is not None
        side = round((states[0].shape[1] - 1) ** 0.5)
        # without the class token and without the embedding that the first block starts from
        return [s[:, 1:].transpose(1, 2).unflatten(2, (side, side)) for s in states[1:]]

    return FeatureDistance(maps, tower, name=name)
