"""All columns of a PIE-Bench table for one edit, each under the name of the network behind it."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from farm.metrics.clip_score import ClipScorer
from farm.metrics.distance import PairDistance
from farm.metrics.keys import KeyNetwork
from farm.metrics.pie import region_distance, region_mse, region_psnr, region_ssim
from farm.metrics.pie_columns import COLUMNS
from farm.metrics.pie_masks import Convention, weight_of
from farm.metrics.structure import structure_distance
from farm.metrics.weights import CLIP, DINO, load_clip, load_dino, load_lpips, require

_PIXELS = 255.0
"""The benchmark's code gives DINO samples of 0 to 255 where it expects 0 to 1 (spec §8.2)."""


@dataclass(frozen=True)
class PieNetworks:
    """What a table is measured with.

    Attributes:
        keys: of the structure distance.
        perceptual: of the distance on the unedited region.
        clip: of the agreement with the prompts.
    """

    keys: KeyNetwork
    perceptual: PairDistance
    clip: ClipScorer


class PieMetrics:
    """Measures pairs of a source and an edit.

    Args:
        networks: what with; their names become part of the figures' names.
        convention: "released" as the published tables, or "corrected" (farm.metrics.pie).
    """

    def __init__(self, networks: PieNetworks, convention: Convention = "released") -> None:
        self._networks = networks
        self._convention: Convention = convention

    def names(self) -> list[str]:
        """Names of the figures in the order of `COLUMNS`."""
        used = {
            "structure_distance": self._networks.keys.name,
            "distance_unedited": self._networks.perceptual.name,
            "clip_source": self._networks.clip.name,
            "clip_whole": self._networks.clip.name,
            "clip_edited": self._networks.clip.name,
        }
        return [f"{name}[{used[name]}]" if name in used else name for name in COLUMNS]

    def __call__(
        self,
        source: Float[Tensor, "3 height width"],
        edited: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "1 height width"],
        source_prompt: str,
        target_prompt: str,
    ) -> dict[str, float]:
        """All figures of one edit by name; nan where a region is empty.

        Args:
            source: the picture as it was, in [0, 1].
            edited: the edit's result, of the same size.
            mask: 1 where the picture is to be edited.
            source_prompt: without the benchmark's brackets.
            target_prompt: without the benchmark's brackets.
        """
        first, second, where = source[None], edited[None], mask[None]
        with torch.no_grad():
            values = [self._structure(first, second)]
            values += self._unedited(first, second, weight_of(where, "unedited"))
            values += self._agreement(first, second, where, source_prompt, target_prompt)
        return dict(zip(self.names(), values, strict=True))

    def _structure(
        self, source: Float[Tensor, "1 3 height width"], edited: Float[Tensor, "1 3 height width"]
    ) -> float:
        released = self._convention == "released"
        levels = _PIXELS if released else 1.0
        keys = [
            self._networks.keys(picture, levels=levels, antialias=not released)
            for picture in (source, edited)
        ]
        return structure_distance(*keys).item()

    def _unedited(
        self,
        source: Float[Tensor, "1 3 height width"],
        edited: Float[Tensor, "1 3 height width"],
        weight: Float[Tensor, "1 1 height width"],
    ) -> list[float]:
        pair, convention = (source, edited, weight), self._convention
        figures = (
            region_psnr(*pair, convention),
            region_distance(*pair, self._networks.perceptual, convention),
            region_mse(*pair, convention),
            region_ssim(*pair, convention),
        )
        return [figure.item() for figure in figures]

    def _agreement(
        self,
        source: Float[Tensor, "1 3 height width"],
        edited: Float[Tensor, "1 3 height width"],
        mask: Float[Tensor, "1 1 height width"],
        source_prompt: str,
        target_prompt: str,
    ) -> list[float]:
        clip = self._networks.clip
        pictures = torch.cat([source, edited, edited * mask])  # the last is black outside the mask
        scores = clip(pictures, [source_prompt, target_prompt, target_prompt]).tolist()
        if not mask.any():
            scores[2] = math.nan
        return scores


def published_networks(folder: Path) -> PieNetworks:
    """DINO ViT-B/8, LPIPS on SqueezeNet and CLIP ViT-L/14 from a folder of weights.

    Raises:
        ModelSetError: naming at once everything that is missing (`farm.metrics.weights`).
    """
    require(folder, [DINO, "lpips-squeeze", CLIP])
    return PieNetworks(load_dino(folder), load_lpips(folder, "squeeze"), load_clip(folder))
