"""Histories as they are while a picture is edited: the new one's codes, around them the old one's.

EditInfinity keeps the source's codes outside a region at every scale (spec §5.7). A network as
small as the scenes' that never saw such a history continues it badly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from farm.backbones.infinity.loading import load_vae
from farm.backbones.infinity.quantiser import Quantised, codes_of, quantise, resize, shrink
from farm.backbones.infinity.schedules import Schedule
from farm.zoo.recipes.pool_files import Tell, cached_tensors
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for
from farm.zoo.scenes.vocabulary import BACKGROUNDS, COLOUR_NAMES, PATTERNS, SHAPES

REGION_SIDE = 16
_CHUNK = 256
_FOREGROUND_SHARE = 0.2  # of a cell, as an edit's regions have it
_GROWN = 4
"""Regions grow by 0 to 3 cells of their own grid: words point roughly, and leave room."""


@dataclass(frozen=True)
class OldScenes:
    """What each of some scenes was before one thing in it changed."""

    features: Float[Tensor, "scenes bits height width"]
    """Before quantisation, fp16."""
    regions: Float[Tensor, "scenes 16 16"]
    """Coverage of what differs, fp16."""


def old_scenes(folder: Path, scenes: Scenes, seed: int, cache: Path, name: str) -> OldScenes:
    """Old versions of the scenes, from `cache` if a pool of that name has them.

    Args:
        folder: the autoencoder's.
        scenes: the new ones.
        seed: of what each was before.
        cache: where encoded pictures are kept.
        name: of the scenes and the autoencoder, together.
    """
    tensors = cached_tensors(
        cache / f"before-{name}-{len(scenes)}.safetensors",
        lambda tell: _encode(folder, scenes, seed, tell),
    )
    return OldScenes(tensors["features"], tensors["regions"])


def one_thing_else(scenes: Scenes, generator: torch.Generator) -> Scenes:
    """The scenes with another colour, shape, pattern or background each.

    Where that would be a combination which no training sees, the scene stays as it is: then the
    same thing is to be drawn again.
    """
    count = len(scenes)
    kinds = torch.randint(4, (count,), generator=generator)
    slots = (torch.rand(count, generator=generator) * scenes.count).long()
    changed = scenes
    for number, (kind, values) in enumerate(
        (("colour", COLOUR_NAMES), ("shape", SHAPES), ("pattern", PATTERNS))
    ):
        now = getattr(scenes, kind)[torch.arange(count), slots]
        other = _another(now, len(values), generator)
        changed = changed.with_slot(kind, slots, torch.where(kinds == number, other, now))
    other = _another(scenes.background, len(BACKGROUNDS), generator)
    changed = replace(changed, background=torch.where(kinds == 3, other, scenes.background))
    kept = changed.held_out()
    return Scenes(
        **{
            f.name: _choose(kept, getattr(scenes, f.name), getattr(changed, f.name))
            for f in fields(Scenes)
        }
    )


def draw_weights(
    regions: Float[Tensor, "batch 16 16"], size: tuple[int, int], generator: torch.Generator
) -> Float[Tensor, "batch 1 height width"]:
    """Weights of the old scenes in latent cells, 1 or 0: the regions, grown by chance."""
    radius = torch.randint(_GROWN, (len(regions),), generator=generator)
    grown = torch.stack(
        [
            F.max_pool2d(region[None].float(), 2 * reach + 1, 1, reach)
            for region, reach in zip(regions, radius.tolist(), strict=True)
        ]
    )
    return (F.adaptive_avg_pool2d(grown, size) < _FOREGROUND_SHARE).float()


def spliced(
    new: Float[Tensor, "batch bits height width"],
    old: Float[Tensor, "batch bits height width"],
    weight: Float[Tensor, "batch 1 height width"],
    schedule: Schedule,
    flips: Sequence[Tensor],
) -> Quantised:
    """The history `E_k = w S_k + (1 - w) G_k` of an edit, and bits that lead to the new picture.

    Args:
        new: features of the picture that the text tells of.
        old: features of the picture that is kept by weight.
        weight: w, 1 = the old one; 0 everywhere gives `quantise(new, schedule, flips)`.
        schedule: the scales.
        flips: see `quantise`.
    """
    source = quantise(old, schedule).bits
    history: list[Tensor] = []
    chosen: list[Tensor] = []
    total = torch.zeros_like(new)
    for scale, size in enumerate(schedule.latent_grids):
        bits = shrink(new - total, size) > 0
        drawn = resize(codes_of(bits ^ flips[scale]), schedule.latent_size)
        kept = resize(codes_of(source[scale]), schedule.latent_size)
        total = total + weight * kept + (1 - weight) * drawn
        chosen.append(bits)
        history.append(total)
    return Quantised(tuple(chosen), tuple(history))


@torch.no_grad()
def _encode(folder: Path, scenes: Scenes, seed: int, tell: Tell) -> dict[str, Tensor]:
    vae = load_vae(folder)
    generator = generator_for("train", seed, "before")
    features: list[Tensor] = []
    regions: list[Tensor] = []
    # called from a training step that computes in half precision, which flips bits near zero
    with torch.autocast("cpu", enabled=False):
        for start in range(0, len(scenes), _CHUNK):
            tell(start, len(scenes))
            new = scenes[slice(start, start + _CHUNK)]
            old = one_thing_else(new, generator)
            before, after = render(old), render(new)
            features.append(vae.encode(before.images).half())
            regions.append(_regions(old, new, before.masks, after.masks).half())
        return {"features": torch.cat(features), "regions": torch.cat(regions)}


def _regions(
    old: Scenes,
    new: Scenes,
    before: Float[Tensor, "scenes slots height width"],
    after: Float[Tensor, "scenes slots height width"],
) -> Float[Tensor, "scenes 16 16"]:
    """The changed object before and after, or all that is no object; where none is, the first."""
    other = (old.colour != new.colour) | (old.shape != new.shape) | (old.pattern != new.pattern)
    slot = other.int().argmax(1)
    rows = torch.arange(len(new))
    thing = torch.maximum(before[rows, slot], after[rows, slot])
    around = 1 - after.amax(1)
    region = _choose(old.background != new.background, around, thing)
    return F.adaptive_avg_pool2d(region, REGION_SIDE)


def _another(
    values: Int[Tensor, " scenes"], number: int, generator: torch.Generator
) -> Int[Tensor, " scenes"]:
    """Of `number` values one that is not this one."""
    return (values + torch.randint(1, number, values.shape, generator=generator)) % number


def _choose(which: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(which.view(-1, *(1,) * (yes.dim() - 1)), yes, no)
