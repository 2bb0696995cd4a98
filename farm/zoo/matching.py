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
_ATTRIBUTES = ("shape", "colour", "pattern")


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


def match_each(
    judge: Judge, images: Float[Tensor, "batch 3 height width"], wanted: Scenes
) -> list[dict[str, float]]:
    """What each generated picture has as its prompt says, shares in [0, 1].

    An object's attributes are those of the found object that agrees with it best. `both` says
    whether a two-object prompt gave at least two objects; `all` whether every attribute of every
    object and the background are right.
    """
    assert images.shape[-1] == 4 * GRID
    reading = judge(images)
    background = reading.background.argmax(1) == wanted.background
    rows: list[dict[str, float]] = []
    for i in range(len(wanted)):
        count = int(wanted.count[i])
        found = find_objects(reading, i)
        objects = [_best(found, wanted, i, slot) for slot in range(count)]
        row = {name: sum(o[name] for o in objects) / count for name in _ATTRIBUTES}
        row["background"] = float(background[i])
        if count > 1:
            row["both"] = float(len(found) >= count)
        row["all"] = float(all(value == 1 for value in row.values()))
        rows.append(row)
    return rows


def match_prompts(
    judge: Judge, images: Float[Tensor, "batch 3 height width"], wanted: Scenes
) -> dict[str, float]:
    """Means of `match_each`; keys end in the prompt's number of objects."""
    values: dict[str, list[float]] = {}
    rows = match_each(judge, images, wanted)
    for row, count in zip(rows, wanted.count.tolist(), strict=True):
        for name, value in row.items():
            values.setdefault("both" if name == "both" else f"{name}_{count}", []).append(value)
    return {name: sum(v) / len(v) for name, v in sorted(values.items())}


def _best(found: list[FoundObject], wanted: Scenes, i: int, slot: int) -> dict[str, bool]:
    """Which attributes the best agreeing object has right."""
    options = [
        {n: getattr(o, n) == int(getattr(wanted, n)[i, slot]) for n in _ATTRIBUTES} for o in found
    ]
    return max(options, key=lambda o: sum(o.values()), default=dict.fromkeys(_ATTRIBUTES, False))
