"""Networks that give a picture's keys, for the structure distance; each under its own name."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import CLIPVisionModel

from farm.errors import InvalidImageError, ModelSetError
from farm.metrics.captured import captured
from farm.metrics.normalisation import CLIP, IMAGENET, Channels

KeysOf = Callable[[Tensor], Tensor]


class KeyNetwork(nn.Module):
    """Square pictures in [0, 1] to the keys of a transformer's last block, heads concatenated.

    Owns its resizing and its mean and std.

    Args:
        trunk: the transformer, taken over: frozen, in eval mode.
        layer: the linear layer in it whose output holds the keys.
        keys_of: from that output (batch, tokens, …) to the keys (batch, tokens, embed).
        name: what results say they were measured with.
        size: side of its input, pixels.
        channels: mean and std of its input.
    """

    def __init__(
        self,
        trunk: nn.Module,
        layer: nn.Module,
        keys_of: KeysOf,
        *,
        name: str,
        size: int,
        channels: Channels,
    ) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.name = name
        self._layer, self._keys_of, self._size = [layer], keys_of, size  # in a list: not a child
        self._channels = channels

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        *,
        levels: float = 1.0,
        antialias: bool = True,
    ) -> Float[Tensor, "batch tokens embed"]:
        """Keys; differentiable with respect to `image`.

        Args:
            image: in [0, 1], square.
            levels: multiplies the samples before mean and std; the benchmark's code feeds 0 to 255
                where the network expects 0 to 1 (spec §8.2).
            antialias: when scaling down; the benchmark's library did not.

        Raises:
            InvalidImageError: the picture is not square.
        """
        height, width = image.shape[-2:]
        if height != width:
            raise InvalidImageError(
                f"found {width}x{height} pixels, expected a square picture for the keys of "
                f"{self.name}; crop both pictures alike"
            )
        size = (self._size, self._size)
        if (height, width) != size:
            image = F.interpolate(image, size, mode="bilinear", antialias=antialias)
        with captured(self._layer) as outputs:
            self.trunk(self._channels.normalised(image * levels))
        return self._keys_of(outputs[-1])


def vit_keys(
    vit: VisionTransformer, *, name: str, size: int, channels: Channels = IMAGENET
) -> KeyNetwork:
    """Keys of the last block of a timm ViT (DINO's, or the scenes' own).

    Raises:
        ModelSetError: its attention has no joint projection of queries, keys and values.
    """
    attention = vit.blocks[-1].get_submodule("attn")
    qkv = getattr(attention, "qkv", None)
    if not isinstance(qkv, nn.Linear) or qkv.out_features != 3 * vit.embed_dim:
        raise ModelSetError(
            f"the last block of {name} has no joint projection of queries, keys and values; "
            "use a plain ViT"
        )

    def keys_of(output: Tensor) -> Tensor:
        return output.chunk(3, dim=-1)[1]  # queries, keys, values

    return KeyNetwork(vit, qkv, keys_of, name=name, size=size, channels=channels)


def clip_keys(tower: CLIPVisionModel, *, name: str) -> KeyNetwork:
    """Keys of the last block of a CLIP image tower: a stand-in, never called DINO."""
    size = tower.config.image_size
    assert isinstance(size, int), "CLIP takes square pictures"
    blocks = tower.get_submodule("encoder.layers")
    assert isinstance(blocks, nn.ModuleList)
    layer = blocks[-1].get_submodule("self_attn.k_proj")
    return KeyNetwork(tower, layer, _as_they_are, name=name, size=size, channels=CLIP)


def _as_they_are(output: Tensor) -> Tensor:
    return output
