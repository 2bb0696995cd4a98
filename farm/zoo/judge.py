"""The judge: an independent network that reads a picture's attributes, for evaluation alone.

Dense, so that it can be asked about the object at a place: for every cell of a 16x16 grid whether
an object is there and its shape, colour and pattern; and one answer for the background. It shares
nothing with CLIP, no method uses it, and it never saw a method's output.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from farm.errors import ModelSetError
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES

GRID = 16
_HEADS = (1, len(SHAPES), len(COLOUR_NAMES), len(PATTERNS))
_PRESENT = 0.5


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


@dataclass(frozen=True)
class Reading:
    """Raw answers of the judge for a batch of pictures."""

    presence: Float[Tensor, "batch grid grid"]
    shape: Float[Tensor, "batch shapes grid grid"]
    colour: Float[Tensor, "batch colours grid grid"]
    pattern: Float[Tensor, "batch patterns grid grid"]
    background: Float[Tensor, "batch backgrounds"]


class Judge(nn.Module):
    """A small U-shaped convolutional network: logits at 16x16, background from the bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 24, 2), _block(24, 48, 2), _block(48, 64))
        self.down8 = nn.Sequential(_block(64, 96, 2), _block(96, 96))
        self.down4 = nn.Sequential(_block(96, 128, 2), _block(128, 128))
        self.narrow = _block(128, 96)
        self.up8 = _block(192, 96)
        self.up16 = _block(160, 96)
        self.cells = nn.Conv2d(96, sum(_HEADS), 1)
        self.background = nn.Linear(128, len(BACKGROUNDS))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Reading:
        """Read pictures in [0, 1] of 64x64 pixels."""
        at16 = self.stem(images * 2 - 1)
        at8 = self.down8(at16)
        at4 = self.down4(at8)
        up8 = self.up8(torch.cat([F.interpolate(self.narrow(at4), scale_factor=2.0), at8], 1))
        up16 = self.up16(torch.cat([F.interpolate(up8, scale_factor=2.0), at16], 1))
        presence, shape, colour, pattern = self.cells(up16).split(_HEADS, dim=1)
        return Reading(presence[:, 0], shape, colour, pattern, self.background(at4.mean((2, 3))))


@dataclass(frozen=True)
class Attributes:
    """What the judge says of the object under a mask, one entry per picture."""

    present: Float[Tensor, " batch"]
    """Mean probability that there is an object, [0, 1]."""
    shape: Int[Tensor, " batch"]
    colour: Int[Tensor, " batch"]
    pattern: Int[Tensor, " batch"]


def read_object(reading: Reading, mask: Float[Tensor, "batch height width"]) -> Attributes:
    """The attributes at a place: cells vote by how much of them the mask covers."""
    weight = F.adaptive_avg_pool2d(mask[:, None], GRID)
    weight = torch.where(weight > 0.3, weight, 0)
    empty = weight.sum((2, 3), keepdim=True) == 0
    pooled = F.adaptive_avg_pool2d(mask[:, None], GRID)
    weight = torch.where(empty, pooled, weight)
    weight = weight / weight.sum((2, 3), keepdim=True).clamp(min=1e-6)

    def vote(logits: Tensor) -> Tensor:
        return (logits.softmax(1) * weight).sum((2, 3)).argmax(1)

    present = (reading.presence.sigmoid() * weight[:, 0]).sum((1, 2))
    return Attributes(present, vote(reading.shape), vote(reading.colour), vote(reading.pattern))


def is_present(attributes: Attributes) -> Tensor:
    return attributes.present > _PRESENT


def load_judge(folder: Path) -> Judge:
    """The trained judge of the scenes zoo.

    Raises:
        ModelSetError: its weights are not there.
    """
    path = folder / "judge" / "model.safetensors"
    if not path.is_file():
        raise ModelSetError(f"{path} is missing: train it with `editfarm zoo train judge`")
    judge = Judge()
    judge.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return judge.eval().requires_grad_(False)
