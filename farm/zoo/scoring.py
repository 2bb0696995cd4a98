"""Scores of one edit of a scene against its exact truth (definitions: success, asked, bound)."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from farm.masks import binarise_midpoint, dilate, iou, pointing
from farm.metrics.psnr import psnr
from farm.zoo.judge import Judge, Reading, is_present, read_object
from farm.zoo.matching import find_objects
from farm.zoo.scenes.edits import EditTruth, SceneEdit

MARGIN = 4
"""Pixels around the region that truly changes that are not counted as untouched."""

ALLOWED_LOSS = 3.0
"""dB below the autoencoder's own error that untouched pixels may lose in a successful edit."""

_Image = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class Judgement:
    """What the judge says of an edited picture."""

    asked: bool
    """The edited thing has what was asked for."""
    kept: bool
    """Its other attributes, the other objects and the background are as they were."""


@dataclass(frozen=True)
class Fidelity:
    """PSNR of an edit in dB; nan where a picture has no such pixels."""

    outside: float
    """Edited against source, outside the region that truly changes."""
    bound: float
    """The autoencoder alone, on the same pixels."""
    inside: float
    """Edited against the re-rendered truth, inside the region."""


def judge_edit(judge: Judge, edited: _Image, edit: SceneEdit, truth: EditTruth) -> Judgement:
    """Ask the judge about every object and the background of an edited picture."""
    reading = judge(edited[None])
    background = int(reading.background.argmax(1))
    target = edit.target
    background_right = background == int(target.background[0])
    # per object: what the edit asks, and everything else
    objects = [_judge_object(reading, edit, truth, s) for s in range(int(target.count[0]))]
    if edit.type == "background":
        return Judgement(background_right, all(asked and kept for asked, kept in objects))
    if edit.type == "remove":
        gone = not bool(is_present(read_object(reading, truth.source.masks[:, edit.slot])))
        return Judgement(gone, background_right and all(a and k for a, k in objects))
    asked, rest = objects[edit.slot]
    others = all(a and k for i, (a, k) in enumerate(objects) if i != edit.slot)
    return Judgement(asked, rest and others and background_right)


def _judge_object(
    reading: Reading, edit: SceneEdit, truth: EditTruth, slot: int
) -> tuple[bool, bool]:
    """Whether the edited attribute, and whether all other attributes, are the target's.

    An object that is added may stand anywhere: the found object that agrees best is taken. For an
    object that the edit does not touch both answers are about all of its attributes.
    """
    wanted = {n: int(getattr(edit.target, n)[0, slot]) for n in ("shape", "colour", "pattern")}
    edited = slot == edit.slot and edit.type != "background"
    if edited and edit.type == "add":
        found = [{n: getattr(o, n) for n in wanted} for o in find_objects(reading, 0)]
        return any(f == wanted for f in found), True
    attributes = read_object(reading, truth.target.masks[:, slot])
    right = {n: int(getattr(attributes, n)) == value for n, value in wanted.items()}
    if not bool(is_present(attributes)):
        return False, False
    if edited:
        return right[edit.type], all(v for n, v in right.items() if n != edit.type)
    return all(right.values()), all(right.values())


def fidelity(edited: _Image, autoencoded: _Image, truth: EditTruth) -> Fidelity:
    """PSNR where nothing should change, where something should, and what the autoencoder allows.

    Args:
        edited: the edit's result.
        autoencoded: the source through the autoencoder that the method uses.
        truth: both scenes and the region.
    """
    source, target = truth.source.images, truth.target.images
    region = truth.region[None, None]
    outside = (dilate(region, MARGIN) < 0.01).float()
    return Fidelity(
        outside=psnr(edited[None], source, outside).item(),
        bound=psnr(autoencoded[None], source, outside).item(),
        inside=psnr(edited[None], target, region).item(),
    )


def is_success(judgement: Judgement, figures: Fidelity) -> bool:
    """All conditions of definitions.md; a picture without untouched pixels keeps them all."""
    intact = math.isnan(figures.outside) or figures.outside >= figures.bound - ALLOWED_LOSS
    return judgement.asked and judgement.kept and intact


@dataclass(frozen=True)
class RegionScore:
    """How well the method found the region."""

    iou: float
    pointing: float
    """1 where the map's maximum lies in the region, else 0."""
    small: bool
    """The region is under 4 % of the picture: reported apart."""


def score_region(
    truth: EditTruth,
    mask: Float[Tensor, "height width"] | None,
    attention: Float[Tensor, "height width"] | None,
) -> RegionScore:
    """IoU of the method's own mask, or of its attention at the midpoint where it gives none.

    What a method has neither of is nan.
    """
    region = (truth.region[None, None] > 0.5).float()
    found = mask
    if found is None and attention is not None:
        found = binarise_midpoint(attention[None, None])[0, 0]
    return RegionScore(
        iou=math.nan if found is None else iou(found[None, None], region).item(),
        pointing=math.nan
        if attention is None
        else float(pointing(attention[None, None], region).item()),
        small=truth.region.mean().item() < 0.04,
    )
