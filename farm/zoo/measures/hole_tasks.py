"""Inpainting tasks with known answers: a picture, a hole, and what the caption wants in it.

Three kinds take turns. `redraw`: the erased object is asked for again. `replace`: another shape,
colour and pattern are asked for in its place. `add`: an object is asked for where there was none.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.masks import boxes_to_masks
from farm.zoo.scenes.boxes import bounding_boxes
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import COLOUR_NAMES, PATTERNS, SHAPES, SIZE

KINDS = ("redraw", "replace", "add")
ATTRIBUTES = {"shape": len(SHAPES), "colour": len(COLOUR_NAMES), "pattern": len(PATTERNS)}
_LEAST_MARGIN, _MARGIN = 2.0, 10.0


@dataclass(frozen=True)
class HoleTasks:
    """Tasks whose kinds take turns."""

    kinds: tuple[str, ...]
    wanted: Scenes
    """What the caption says."""
    slot: Int[Tensor, " tasks"]
    """The object that is to be in the hole."""
    images: Float[Tensor, "tasks 3 64 64"]
    """Before anything is erased."""
    holes: Float[Tensor, "tasks 1 64 64"]
    """1 where a picture is erased."""

    def __len__(self) -> int:
        return len(self.slot)

    def __getitem__(self, index: slice) -> "HoleTasks":
        return HoleTasks(
            self.kinds[index],
            self.wanted[index],
            self.slot[index],
            self.images[index],
            self.holes[index],
        )


def hole_tasks(count: int, seed: int) -> HoleTasks:
    """`count` tasks on held-out scenes; their holes are boxes 2 to 12 pixels around an object."""
    generator = generator_for("heldout", seed, "hole tasks")
    any_number = sample_scenes(count, generator, split="heldout")
    two = sample_scenes(2 * count + 64, generator, split="heldout", two_share=1.0)
    two = two[(two.count == 2).nonzero()[:count, 0]]  # one object where two did not fit
    scenes: list[Scenes] = []
    sources: list[Scenes] = []
    wanted: list[Scenes] = []
    slots: list[int] = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        scene = (two if kind == "add" else any_number)[slice(i, i + 1)]
        drawn = int(torch.randint(int(scene.count[0]), (1,), generator=generator))
        slot = 1 if kind == "add" else drawn
        scenes.append(scene)
        sources.append(replace(scene, count=torch.tensor([1])) if kind == "add" else scene)
        wanted.append(_with_other_object(scene, slot, generator) if kind == "replace" else scene)
        slots.append(slot)
    slot = torch.tensor(slots)
    place = render(concatenate(scenes)).masks[torch.arange(count), slot]
    margin = _LEAST_MARGIN + _MARGIN * torch.rand(count, 4, generator=generator)
    outwards = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    boxes = (bounding_boxes(place) + outwards * margin).round().clamp(0, SIZE)
    return HoleTasks(
        tuple(KINDS[i % len(KINDS)] for i in range(count)),
        concatenate(wanted),
        slot,
        render(concatenate(sources)).images,
        boxes_to_masks(boxes, SIZE, SIZE),
    )


def _with_other_object(scene: Scenes, slot: int, generator: torch.Generator) -> Scenes:
    """The scene (a batch of one) with another shape, colour and pattern of one object."""
    for name, number in ATTRIBUTES.items():
        values = getattr(scene, name)[0]
        taken = {int(values[slot])}
        if int(scene.count[0]) == 2 and name != "pattern":
            taken.add(int(values[1 - slot]))  # words tell the two objects apart by these
        free = [v for v in range(number) if v not in taken]
        chosen = free[int(torch.randint(len(free), (1,), generator=generator))]
        scene = scene.with_slot(name, torch.tensor([slot]), torch.tensor([chosen]))
    return scene
