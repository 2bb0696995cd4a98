"""Pairs of scenes that differ in one thing, with the words and the exact truth of the edit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.zoo.scenes.captions import caption
from farm.zoo.scenes.rendering import Rendering, render
from farm.zoo.scenes.scenes import Scenes, Split, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import (
    BACKGROUNDS,
    COLOUR_NAMES,
    EDIT_TYPES,
    PATTERNS,
    SHAPES,
    EditType,
)

_DRAWN_AT_ONCE = 64  # fixed, so that more edits of a seed begin with the same ones


def parse_types(text: str) -> tuple[EditType, ...]:
    """Types of edit from names between commas.

    Raises:
        InvalidRequestError: a name is none, or there is no name.
    """
    known: dict[str, EditType] = {kind: kind for kind in EDIT_TYPES}
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InvalidRequestError(
            f"types {text!r}: found {', '.join(wrong) or 'none'}; choose from "
            f"{', '.join(EDIT_TYPES)}"
        )
    return tuple(known[name] for name in names)


@dataclass(frozen=True)
class SceneEdit:
    """One edit of one scene; `source` and `target` are batches of one."""

    type: EditType
    source: Scenes
    target: Scenes
    slot: int
    """The object that is edited, added or removed; meaningless for a background edit."""
    source_prompt: str
    target_prompt: str
    source_word: str
    """The word of the source prompt that the edit replaces or takes away (add: the background)."""
    target_word: str
    """The word of the target prompt that says what is new (remove: the word that is gone)."""

    @property
    def held_out(self) -> bool:
        """Whether source or target holds a combination that no training saw."""
        return bool(self.source.held_out().any() or self.target.held_out().any())


@dataclass(frozen=True)
class EditTruth:
    """What only the evaluation may see."""

    source: Rendering
    target: Rendering
    region: Float[Tensor, "height width"]
    """The region that truly changes, [0, 1]."""


def edit_truth(edit: SceneEdit) -> EditTruth:
    """Render both scenes and the true region.

    Colour and pattern: the object. Shape, add, remove: the object before and after. Background:
    all that is no object.
    """
    source, target = render(edit.source), render(edit.target)
    if edit.type == "background":
        region = 1 - source.masks[0].amax(0)
    else:
        region = torch.maximum(source.masks[0, edit.slot], target.masks[0, edit.slot])
    return EditTruth(source, target, region)


def sample_edits(
    count: int, seed: int, types: Sequence[EditType], *, split: Split = "heldout"
) -> list[SceneEdit]:
    """`count` edits drawn from `seed` alone, the types taking turns.

    One third of the scenes have two objects (all of them where one is added or removed).
    """
    per_type = -(-count // len(types))
    pools = {kind: _edits_of_type(kind, per_type, seed, split) for kind in types}
    return [pools[types[i % len(types)]][i // len(types)] for i in range(count)]


def _edits_of_type(kind: EditType, count: int, seed: int, split: Split) -> list[SceneEdit]:
    generator = generator_for(split, seed, f"edits/{kind}")
    pairs = kind in ("add", "remove")
    edits: list[SceneEdit] = []
    while len(edits) < count:
        scenes = sample_scenes(
            _DRAWN_AT_ONCE,
            generator,
            split=split,
            two_share=1.0 if pairs else 1 / 3,
        )
        for i in range(len(scenes)):
            scene = scenes[slice(i, i + 1)]
            if not _words_are_clear(kind, scene):
                continue
            edit = _edit_of(kind, scene, generator)
            if split != "train" or not edit.held_out:
                edits.append(edit)
    return edits[:count]


def _words_are_clear(kind: EditType, scene: Scenes) -> bool:
    """Whether the words of such an edit single out one object of the scene."""
    two = int(scene.count[0]) == 2
    if kind in ("add", "remove"):
        return two
    return not (kind == "pattern" and two and bool(scene.pattern[0, 0] == scene.pattern[0, 1]))


def _edit_of(kind: EditType, scene: Scenes, generator: torch.Generator) -> SceneEdit:
    objects = int(scene.count[0])
    slot = int(torch.randint(objects, (1,), generator=generator))
    if kind in ("add", "remove"):
        return _count_edit(kind, scene)
    if kind == "background":
        new = _other(int(scene.background[0]), len(BACKGROUNDS), (), generator)
        target = replace(scene, background=torch.tensor([new]))
        words = (BACKGROUNDS[int(scene.background[0])], BACKGROUNDS[new])
        return SceneEdit(kind, scene, target, slot, caption(scene, 0), caption(target, 0), *words)
    names = {"colour": COLOUR_NAMES, "shape": SHAPES, "pattern": PATTERNS}[kind]
    values = getattr(scene, kind)[0]
    taken = () if objects == 1 else (int(values[1 - slot]),)
    new = _other(int(values[slot]), len(names), taken, generator)
    target = scene.with_slot(kind, torch.tensor([slot]), torch.tensor([new]))
    plain = slot if kind == "pattern" else None
    return SceneEdit(
        kind,
        scene,
        target,
        slot,
        caption(scene, 0, plain_slot=plain),
        caption(target, 0, plain_slot=plain),
        names[int(values[slot])],
        names[new],
    )


def _count_edit(kind: EditType, scene: Scenes) -> SceneEdit:
    """Add or remove the second object."""
    fewer = replace(scene, count=torch.tensor([1]))
    noun = SHAPES[int(scene.shape[0, 1])]
    background = BACKGROUNDS[int(scene.background[0])]
    if kind == "add":
        return SceneEdit(
            kind, fewer, scene, 1, caption(fewer, 0), caption(scene, 0), background, noun
        )
    return SceneEdit(kind, scene, fewer, 1, caption(scene, 0), caption(fewer, 0), noun, background)


def _other(current: int, number: int, taken: tuple[int, ...], generator: torch.Generator) -> int:
    """A value that is neither the current one nor that of the other object."""
    free = [v for v in range(number) if v != current and v not in taken]
    return free[int(torch.randint(len(free), (1,), generator=generator))]
