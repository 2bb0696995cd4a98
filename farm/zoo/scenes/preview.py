"""Grids of pictures for people to look at."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import EDIT_TYPES


def grid(
    images: Float[Tensor, "images 3 height width"], *, columns: int, scale: int = 2, gap: int = 2
) -> Float[Tensor, "3 grid_height grid_width"]:
    """Pictures side by side on white, each enlarged by a whole factor."""
    tiles = F.interpolate(images.clamp(0, 1), scale_factor=scale, mode="nearest")
    tiles = F.pad(tiles, (0, gap, 0, gap), value=1.0)
    missing = -len(tiles) % columns
    tiles = torch.cat([tiles, torch.ones(missing, *tiles.shape[1:])])
    rows = tiles.view(-1, columns, *tiles.shape[1:])
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)


def preview(seed: int, *, columns: int = 12) -> Float[Tensor, "3 height width"]:
    """Four rows of scenes, then a source and a target row for every type of edit."""
    scenes = sample_scenes(4 * columns, generator_for("heldout", seed), split="heldout")
    rows = [render(scenes).images]
    for kind in EDIT_TYPES:
        truths = [edit_truth(e) for e in sample_edits(columns, seed, (kind,))]
        rows += [torch.cat([t.source.images for t in truths])]
        rows += [torch.cat([t.target.images for t in truths])]
    return grid(torch.cat(rows), columns=columns)
