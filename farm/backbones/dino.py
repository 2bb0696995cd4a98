"""A self-supervised vision transformer (DINO, arXiv:2104.14294), frozen: where things are.

A timm `VisionTransformer` gives the last layer's [CLS] attention, tokens and keys in one pass.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from farm.backbones.filling import fill, on_meta, single
from farm.backbones.weight_files import read_weights
from farm.errors import InvalidRequestError, ModelSetError

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_HEAD_WIDTH = 64
_OFFICIAL_OFFSET = 0.1


@dataclass(frozen=True)
class DinoFeatures:
    """What the last layer says about each picture; place 0 is [CLS], then cells row by row.

    Attributes:
        attention: probabilities with which [CLS] looks at each place.
        tokens: after the final norm.
        keys: of the last attention layer, heads side by side.
    """

    attention: Float[Tensor, "batch heads places"]
    tokens: Float[Tensor, "batch places channels"]
    keys: Float[Tensor, "batch places channels"]


class Dino(nn.Module):
    """Pictures in [0, 1] of any size that patches divide.

    Args:
        vit: taken over: frozen and in eval mode.
        mean: of the pixels that it was trained on, per channel.
        std: likewise.
        position_offset: what is added to the grid's side when the table of positions is resized.
            DINO's own code resizes by the factor (side + 0.1) / table, which places the samples
            elsewhere than a resize to `side`; 0 is that plain resize, timm's.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        position_offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.vit = vit.requires_grad_(False).eval()
        self.position_offset = position_offset
        self.patch = int(vit.patch_embed.patch_size[0])
        self.width = int(vit.embed_dim)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"], *, normalise: bool = True
    ) -> DinoFeatures:
        """Features of pictures; without `normalise` the pixels go in as they are.

        Raises:
            InvalidRequestError: patches do not divide the picture.
        """
        if image.shape[-2] % self.patch or image.shape[-1] % self.patch:
            raise InvalidRequestError(
                f"DINO got a picture of {image.shape[-2]}x{image.shape[-1]}, expected sides that "
                f"are multiples of its patch of {self.patch} pixels: resize the picture"
            )
        pixels = (image - self.mean) / self.std if normalise else image
        tokens = self._embedded(pixels)
        *blocks, last = self.vit.blocks
        for block in blocks:
            tokens = block(tokens)
        query, key = _query_and_key(last, tokens)
        attention = (query[:, :, :1] @ key.transpose(-2, -1)).softmax(dim=-1)
        return DinoFeatures(
            attention=attention[:, :, 0],
            tokens=self.vit.norm(last(tokens)),
            keys=key.transpose(1, 2).flatten(2),
        )

    def _embedded(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch places channels"]:
        cells = self.vit.patch_embed.proj(pixels)  # (batch, width, rows, columns)
        rows, columns = cells.shape[-2:]
        tokens = cells.flatten(2).transpose(1, 2)
        first = self.vit.cls_token
        assert first is not None
        tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.vit.norm_pre(tokens + self.positions(rows, columns))

    def positions(self, rows: int, columns: int) -> Float[Tensor, "1 places channels"]:
        """The table of positions for a grid of cells; untouched where it has that size."""
        table = self.vit.pos_embed
        assert table is not None
        side = round((table.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return table
        grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.position_offset:
            factors = [(n + self.position_offset) / side for n in (rows, columns)]
            resized = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        else:
            resized = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        assert resized.shape[-2:] == (rows, columns)
        return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def _query_and_key(
    block: Any, tokens: Float[Tensor, "batch places channels"]
) -> tuple[
    Float[Tensor, "batch heads places head_dim"], Float[Tensor, "batch heads places head_dim"]
]:
    """Of a layer's attention; the query already scaled."""
    attention = block.attn
    qkv = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1))
    query, key, _ = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, places, head_dim)
    return attention.q_norm(query) * attention.scale, attention.k_norm(key)


def load_dino(folder: Path) -> Dino:
    """DINO from a folder with timm's `config.json` and `model.safetensors`.

    `config.json` names the `architecture` and its `model_args`; `pretrained_cfg` may give `mean`
    and `std` (ImageNet's otherwise) and `interpolate_offset` (0 otherwise; 0.1 for DINO's own
    weights).

    Raises:
        ModelSetError: a file is missing or broken, or they do not belong together.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        state = read_weights(folder)
        architecture = str(config["architecture"])
    except (OSError, ValueError, KeyError, ModelSetError) as error:
        raise ModelSetError(
            f"{folder} cannot be loaded ({error!r}): it must hold timm's config.json with an "
            "architecture, and model.safetensors; fetch the model set again"
        ) from error
    given = {"num_classes": 0} | config.get("model_args", {})
    try:
        vit = on_meta(lambda: timm.create_model(architecture, pretrained=False, **given))
    except (RuntimeError, TypeError) as error:
        raise ModelSetError(f"{path}: timm cannot build {architecture!r} ({error})") from error
    if not isinstance(vit, VisionTransformer):
        raise ModelSetError(f"{path}: {architecture!r} is no vision transformer of timm's")
    _fill(vit, state, folder)
    about = config.get("pretrained_cfg", {})
    return Dino(
        vit,
        mean=about.get("mean", _MEAN),
        std=about.get("std", _STD),
        position_offset=float(about.get("interpolate_offset", 0.0)),
    )


def build_official_dino(
    state: Mapping[str, Shaped[Tensor, "..."]],
    *,
    num_heads: int | None = None,
    name: str = "weights",
) -> Dino:
    """DINO from weights in the authors' names, which are timm's too.

    Args:
        state: of the backbone; a head's weights are ignored.
        num_heads: of each layer; None: 64 channels each, as in all released ones.
        name: of the weights, for errors.

    Raises:
        ModelSetError: something is missing, or of a wrong shape.
    """
    kept = {key: tensor.float() for key, tensor in state.items() if not key.startswith("head.")}
    try:
        width, _, patch, _ = kept["patch_embed.proj.weight"].shape
        side = round((kept["pos_embed"].shape[1] - 1) ** 0.5)
        hidden = kept["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ModelSetError(f"{name} is no DINO vision transformer ({error!r})") from error
    vit = on_meta(
        lambda: VisionTransformer(
            img_size=side * patch,
            patch_size=patch,
            embed_dim=width,
            depth=len({key.split(".")[1] for key in kept if key.startswith("blocks.")}),
            num_heads=num_heads or width // _HEAD_WIDTH,
            mlp_ratio=hidden / width,
            num_classes=0,
        )
    )
    _fill(vit, kept, Path(name))
    return Dino(vit, position_offset=_OFFICIAL_OFFSET)


def _fill(vit: nn.Module, state: Mapping[str, Shaped[Tensor, "..."]], path: Path) -> None:
    """Load all weights, and refuse when one is missing, superfluous or of another shape."""
    expected = {name: tensor.shape for name, tensor in vit.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    wrong = [n for n in expected | found if expected.get(n) != found.get(n)]
    if wrong:
        first = sorted(wrong)[0]
        raise ModelSetError(
            f"{path}: {len(wrong)} weights do not fit the network, the first is {first}: found "
            f"{_shape(found.get(first))}, expected {_shape(expected.get(first))}; give the weights "
            "that the configuration describes"
        )
    fill(vit, state, str(path), single)


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))
