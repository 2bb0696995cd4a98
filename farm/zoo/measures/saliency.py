"""How well [CLS] attention finds objects, whichever network it comes from."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.backbones.dino import load_dino
from farm.masks import binarise_midpoint, iou, pointing
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes


def measure_saliency(bench: Bench, part: str = "dino") -> Figures:
    """`saliency_cases` of a ViT's last layer, through the backbone that the methods use."""
    dino = load_dino(bench.networks / part)
    scenes = sample_scenes(
        bench.cases, generator_for("heldout", bench.seed, "saliency"), split="heldout"
    )
    rows: list[dict[str, Tensor]] = []
    for chunk in bench.chunks(f"{part}, [CLS] attention"):
        drawn = render(scenes[chunk])
        height, width = drawn.images.shape[-2:]
        with torch.no_grad():
            attention = dino(drawn.images).attention[..., 1:]
        grid = (height // dino.patch, width // dino.patch)
        rows.append(saliency_cases(attention.unflatten(-1, grid), drawn.masks))
    cases = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    groups = combinations(scenes.held_out())
    groups |= {"one": scenes.count == 1, "two": scenes.count == 2}
    return by_group(cases, groups)


def saliency_cases(
    attention: Float[Tensor, "pictures heads rows columns"],
    masks: Float[Tensor, "pictures slots height width"],
) -> dict[str, Float[Tensor, " pictures"]]:
    """Per picture: the mean of the heads against all objects together, and the best single head.

    Args:
        attention: of [CLS] to the patches, non-negative.
        masks: coverage by each object, [0, 1]; unused slots are zero.

    Returns:
        `midpoint_iou` with the union of the objects; `pointing`, whether the maximum lies in any of
        them; `reached`, the share of objects of which the midpoint mask covers a quarter at
        least; and `head_<n>_midpoint_iou` of each head alone.
    """
    truth = (masks.amax(1) > 0.5).float()
    size = (truth.shape[-2], truth.shape[-1])
    grown = F.interpolate(attention, size=size, mode="bilinear")
    mean = grown.mean(1)
    found = binarise_midpoint(mean)
    each = (masks > 0.5).float()
    area = each.sum((2, 3))
    covered = (each * found[:, None]).sum((2, 3)) >= 0.25 * area
    present = area > 0
    cases = {
        "midpoint_iou": iou(found, truth),
        "pointing": pointing(mean, truth).float(),
        "reached": (covered & present).sum(1) / present.sum(1),
    }
    heads = binarise_midpoint(grown)
    return cases | {
        f"head_{n}_midpoint_iou": iou(heads[:, n], truth) for n in range(heads.shape[1])
    }
