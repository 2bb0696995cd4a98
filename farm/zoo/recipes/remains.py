"""Holes over things that are to become others, and too small for some: remains show around them.

Holes cut into finished pictures never show such a thing: what reaches out of them belongs to what
is asked for. A network that knows only those completes the old thing, whatever the words say.
"""

from dataclasses import fields, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.stable_diffusion import Autoencoder
from farm.masks import boxes_to_masks
from farm.zoo.recipes.holes import HolePool, with_hole
from farm.zoo.recipes.latents import weights_digest
from farm.zoo.recipes.pool_files import Tell, cached_tensors
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import COLOUR_NAMES, PATTERNS, SHAPES, SIZE

_CHUNK = 256
_DRAWING = "a"  # another letter where the same settings give other holes

_HALF = (10.0, 18.0)
"""Pixels from a hole's middle to its sides: things' own radii are 10.5 to 19.5."""
_ASIDE = 4.0
"""Pixels by which a hole's middle may miss the thing's, along each axis."""
_FILLED = (0.8, 1.0)
"""Radius of the new thing, of half the hole's shorter side."""
_CHANGES = 0.5
"""Chance of each attribute to be another one."""
_CUT = 0.03
"""Share of the new thing that may lie outside the hole: outlines reach beyond the radius."""


def remains_pool(
    autoencoder_folder: Path, count: int, seed: int, cache: Path, *, two_share: float
) -> HolePool:
    """`count` pictures with one hole each, from `cache` where they were made before.

    The scenes are those that the words tell of; the picture is theirs within the hole, and of what
    was there before around it.
    """
    key = weights_digest(autoencoder_folder, f"remains/{_DRAWING}/{count}/{seed}/{two_share}")
    tensors = cached_tensors(
        cache / f"remains-{key}.safetensors",
        lambda tell: _encode(autoencoder_folder, count, seed, two_share, tell),
    )
    scenes = Scenes(**{f.name: tensors[f.name] for f in fields(Scenes)})
    names = ("latents", "masks", "holes", "left")
    return HolePool(scenes, *(tensors[name] for name in names))


def another_in_a_hole(
    old: Scenes, generator: torch.Generator
) -> tuple[Scenes, Int[Tensor, "scenes 4"], Int[Tensor, " scenes"]]:
    """For each scene a hole about one of its things, and the scene with another thing within it.

    Each attribute changes by chance; where that gives a combination which no training sees, none
    does. The new thing is as large as its hole has room for, wherever the old one reached.

    Returns:
        The new scenes, holes (left, top, right, bottom in pixels, exclusive), and whose thing.
    """
    count, rows = len(old), torch.arange(len(old))

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    slot = (uniform() * old.count).long()
    middle = old.geometry[rows, slot, :2] + uniform(2, low=-_ASIDE, high=_ASIDE)
    half = uniform(1, low=_HALF[0], high=_HALF[1])
    holes = torch.cat([middle - half, middle + half], 1).round().long().clamp(0, SIZE)
    new = old
    for name, values in (("shape", SHAPES), ("colour", COLOUR_NAMES), ("pattern", PATTERNS)):
        now = getattr(old, name)[rows, slot]
        offset = torch.randint(1, len(values), (count,), generator=generator)
        other = torch.where(uniform() < _CHANGES, (now + offset) % len(values), now)
        new = new.with_slot(name, slot, other)
    kept = new.held_out() | _alike(new)
    for name in ("shape", "colour", "pattern"):
        back = torch.where(kept[:, None], getattr(old, name), getattr(new, name))
        new = replace(new, **{name: back})
    sides = (holes[:, 2:] - holes[:, :2]).float()
    radius = sides.amin(1) / 2 * uniform(low=_FILLED[0], high=_FILLED[1])
    slack = sides / 2 - radius[:, None]
    centre = (holes[:, :2] + holes[:, 2:]) / 2 + slack * uniform(2, low=-1.0)
    angle = old.geometry[rows, slot, 3:]
    placed = torch.cat([centre, radius[:, None], angle], 1)
    return new.with_slot("geometry", slot, placed), holes, slot


def _alike(scenes: Scenes) -> Tensor:
    """Where words do not tell two things apart: they share a shape or a colour."""
    same = (scenes.shape[:, 0] == scenes.shape[:, 1]) | (scenes.colour[:, 0] == scenes.colour[:, 1])
    return same & (scenes.count > 1)


def fits(
    masks: Float[Tensor, "scenes slots 64 64"],
    holes: Int[Tensor, "scenes 4"],
    slot: Int[Tensor, " scenes"],
) -> Tensor:
    """Where the new thing lies in its hole, and on no other thing."""
    rows = torch.arange(len(masks))
    thing, other = masks[rows, slot], masks[rows, 1 - slot]
    within = boxes_to_masks(holes.float(), SIZE, SIZE)[:, 0]
    cut = (thing * (1 - within)).sum(dim=(1, 2)) / thing.sum(dim=(1, 2))
    return (cut <= _CUT) & (torch.minimum(thing, other).sum(dim=(1, 2)) < 1)


def _encode(folder: Path, count: int, seed: int, two_share: float, tell: Tell) -> dict[str, Tensor]:
    # called from a training step that computes in half precision, in which nothing is to be drawn
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return _drawn(folder, count, seed, two_share, tell)


def _drawn(folder: Path, count: int, seed: int, two_share: float, tell: Tell) -> dict[str, Tensor]:
    autoencoder = Autoencoder(AutoencoderKL.from_pretrained(folder).float())
    generator = generator_for("train", seed, "remains")
    parts: dict[str, list[Tensor]] = {name: [] for name in ("latents", "masks", "holes", "left")}
    scenes: list[Scenes] = []
    found = 0
    while found < count:
        tell(found, count)
        old = sample_scenes(_CHUNK, generator, split="train", two_share=two_share)
        new, holes, slot = another_in_a_hole(old, generator)
        after = render(new)
        use = fits(after.masks, holes, slot).nonzero()[: count - found, 0]
        hole = boxes_to_masks(holes[use].float(), SIZE, SIZE)
        images = torch.where(hole > 0.5, after.images[use], render(old[use]).images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts["latents"].append(autoencoder.encode(images).half())
            parts["left"].append(autoencoder.encode(with_hole(images, hole)).half()[:, None])
        coverage = torch.nn.functional.adaptive_avg_pool2d(after.masks[use], 16)
        parts["masks"].append(coverage.half())
        parts["holes"].append(holes[use, None].to(torch.int16))
        scenes.append(new[use])
        found += len(use)
    together = concatenate(scenes)
    tensors = {f.name: getattr(together, f.name) for f in fields(Scenes)}
    return tensors | {name: torch.cat(chunks) for name, chunks in parts.items()}
