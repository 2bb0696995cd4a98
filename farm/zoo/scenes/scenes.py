"""A batch of scenes as plain tensors, and how to draw one from a seed."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from farm.zoo.scenes.vocabulary import (
    BACKGROUNDS,
    COLOUR_NAMES,
    PATTERNS,
    RADII,
    SHAPES,
    SIZE,
    SIZES,
    SLOTS,
)

Split = Literal["train", "heldout"]

_POSITION_TRIES = 24
_REDRAWS = 64


@dataclass(frozen=True)
class Scenes:
    """A batch of pictures by their content; everything a renderer or a caption needs.

    Unused slots (`slot >= count`) hold valid but meaningless values.
    """

    background: Int[Tensor, " scenes"]
    texture: Float[Tensor, "scenes 4"]
    """Parameters of the background's texture, [0, 1]: the same texture is drawn again exactly."""
    count: Int[Tensor, " scenes"]
    shape: Int[Tensor, "scenes slots"]
    colour: Int[Tensor, "scenes slots"]
    pattern: Int[Tensor, "scenes slots"]
    size: Int[Tensor, "scenes slots"]
    geometry: Float[Tensor, "scenes slots 4"]
    """Centre x, centre y, radius (pixels), angle (radians)."""

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, index: slice | Tensor | list[int]) -> "Scenes":
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def with_slot(self, name: str, slot: Int[Tensor, " scenes"], value: Tensor) -> "Scenes":
        """A copy in which attribute `name` of each scene's object `slot` is `value`."""
        changed = getattr(self, name).clone()
        changed[torch.arange(len(self)), slot] = value
        return replace(self, **{name: changed})

    def present(self) -> Bool[Tensor, "scenes slots"]:
        """Which slots hold an object."""
        return torch.arange(SLOTS) < self.count[:, None]

    def held_out(self) -> Bool[Tensor, " scenes"]:
        """Which scenes hold an object whose combination no training sees."""
        rule = (self.shape * 7 + self.colour * 3 + self.background[:, None]) % 9 == 0
        return (rule & self.present()).any(1)


def concatenate(batches: list[Scenes]) -> Scenes:
    """The scenes of all batches in one."""
    return Scenes(
        **{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(Scenes)}
    )


def generator_for(split: Split, seed: int, purpose: str = "scenes") -> torch.Generator:
    """Random numbers keyed by split, seed and purpose, so that splits are disjoint streams."""
    digest = hashlib.sha256(f"editfarm/{split}/{purpose}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def sample_scenes(
    count: int, generator: torch.Generator, *, split: Split, two_share: float = 1 / 3
) -> Scenes:
    """Draw scenes at random; a share of `two_share` has two objects.

    Two objects of one scene differ in shape and in colour, so words tell them apart. Training
    scenes never hold a held-out combination; held-out scenes are drawn from all combinations.
    """

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    number = 1 + (uniform(count) < two_share).long()
    size = integers(len(SIZES), count, SLOTS)
    scale = uniform(count, SLOTS)
    position, fits = _place(_radius(size, scale), number, generator)
    size = torch.where(fits[:, None], size, 0)
    smaller, still_fits = _place(_radius(size, scale), number, generator)
    position = torch.where(fits[:, None, None], position, smaller)
    radius = _radius(size, scale)
    angle = (uniform(count, SLOTS) - 0.5) * 0.5
    scenes = Scenes(
        background=integers(len(BACKGROUNDS), count),
        texture=uniform(count, 4),
        count=torch.where(fits | still_fits, number, 1),
        shape=_distinct(integers(len(SHAPES), count), integers(len(SHAPES) - 1, count)),
        colour=_distinct(
            integers(len(COLOUR_NAMES), count), integers(len(COLOUR_NAMES) - 1, count)
        ),
        pattern=(integers(5, count, SLOTS) - 2).clamp(min=0) % len(PATTERNS),
        size=size,
        geometry=torch.cat([position, radius[..., None], angle[..., None]], -1),
    )
    return _without_held_out(scenes, generator) if split == "train" else scenes


def _radius(size: Tensor, scale: Tensor) -> Tensor:
    bounds = torch.tensor(RADII)[size]
    return bounds[..., 0] + (bounds[..., 1] - bounds[..., 0]) * scale


def _distinct(first: Tensor, offset: Tensor) -> Tensor:
    """Pairs (scenes, 2) whose second entry skips the first."""
    return torch.stack([first, torch.where(offset >= first, offset + 1, offset)], 1)


def _place(radius: Tensor, number: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres in the frame, the best separated of several tries, and whether the objects fit."""
    margin = (radius + 1.5)[:, None, :, None]
    tries = torch.rand(len(radius), _POSITION_TRIES, SLOTS, 2, generator=generator)
    centres = tries * (SIZE - 2 * margin) + margin
    gap = (centres[:, :, 0] - centres[:, :, 1]).norm(dim=-1) - 1.16 * radius.sum(1)[:, None]
    best = torch.where(number[:, None] == 2, gap.clamp(max=1.0), 0.0).argmax(1)
    rows = torch.arange(len(radius))
    return centres[rows, best], (number == 1) | (gap[rows, best] > 0)


def _without_held_out(scenes: Scenes, generator: torch.Generator) -> Scenes:
    """Draw the background again where a combination is held out."""
    for _ in range(_REDRAWS):
        bad = scenes.held_out()
        if not bad.any():
            return scenes
        drawn = torch.randint(len(BACKGROUNDS), (len(scenes),), generator=generator)
        scenes = replace(scenes, background=torch.where(bad, drawn, scenes.background))
    raise AssertionError("held-out combinations survive 64 redraws: the rule leaves no background")
