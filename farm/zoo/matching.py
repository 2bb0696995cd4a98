"""Does a generated picture show what its prompt says? Asked of the judge, wherever things are."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from farm.zoo.judge import GRID, Judge, Reading
from farm.zoo.scenes.scenes import Scenes

_SMALLEST = 4  # cells; less than that is a speck
_PRESENT = 0.5


@dataclass(frozen=True)
class FoundObject:
    shape: int
    colour: int
    pattern: int
    cells: int


def find_objects(reading: Reading, picture: int) -> list[FoundObject]:
    """Objects of one picture, largest first: connected cells in which something is there."""
    presence = reading.presence[picture].sigmoid()
    labels, number = cast(tuple[np.ndarray, int], ndimage.label((presence > _PRESENT).numpy()))
    found: list[FoundObject] = []
    for label in range(1, int(number) + 1):
        inside = torch.from_numpy(labels == label)
        cells = int(inside.sum())
        if cells < _SMALLEST:
            continue
        weight = presence * inside

        def vote(logits: Float[Tensor, "batch values grid grid"], weight: Tensor = weight) -> int:
            return int((logits[picture].softmax(0) * weight).sum((1, 2)).argmax())

        found.append(
            FoundObject(vote(reading.shape), vote(reading.colour), vote(reading.pattern), cells)
        )
    return sorted(found, key=lambda o: -o.cells)


def match_prompts(
    judge: Judge, images: Float[Tensor, "batch 3 height width"], wanted: Scenes
) -> dict[str, float]:
    """Shares of attributes that generated pictures have as their prompts say.

    An object's attributes are those of the found object that agrees with it best; `both` is the
    share of two-object prompts with at least two objects. Keys end in the number of objects.
    """
    assert images.shape[-1] == 4 * GRID
    reading = judge(images)
    right: dict[str, list[bool]] = {}
    background = reading.background.argmax(1)
    for i in range(len(wanted)):
        count = int(wanted.count[i])
        found = find_objects(reading, i)
        right.setdefault(f"background_{count}", []).append(
            bool(background[i] == wanted.background[i])
        )
        if count > 1:
            right.setdefault("both", []).append(len(found) >= count)
        for slot in range(count):
            best = _best(found, wanted, i, slot)
            for name, value in best.items():
                right.setdefault(f"{name}_{count}", []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(right.items())}


def _best(found: list[FoundObject], wanted: Scenes, i: int, slot: int) -> dict[str, bool]:
    """Which attributes the best agreeing object has right."""
    names = ("shape", "colour", "pattern")
    options = [{n: getattr(o, n) == int(getattr(wanted, n)[i, slot]) for n in names} for o in found]
    return max(options, key=lambda o: sum(o.values()), default=dict.fromkeys(names, False))
