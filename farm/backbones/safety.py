"""Stable Diffusion's safety checker, frozen: which pictures should not be shown.

A CLIP tower's embedding is compared with those of concepts, each with a threshold of its own. One
of three special concepts makes the other thresholds stricter (diffusers' checker, which is the
oracle of the tests).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from jaxtyping import Bool, Float
from torch import Tensor, nn

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_STRICTER = 0.01
_THOUSANDS = 1000
"""Scores are rounded to three digits before they are judged, as the published checker does."""


@dataclass(frozen=True)
class Verdict:
    """What the checker says of pictures.

    Attributes:
        flagged: whether any concept is near enough.
        scores: cosine above each concept's threshold; flagged where positive.
    """

    flagged: Bool[Tensor, " batch"]
    scores: Float[Tensor, "batch concepts"]


class SafetyChecker(nn.Module):
    """Pictures in [0, 1] of any size to a verdict.

    Args:
        checker: taken over: frozen and in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, checker: StableDiffusionSafetyChecker) -> None:
        super().__init__()
        self.checker = checker.requires_grad_(False).eval()
        self.size = int(checker.config.vision_config.image_size)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> Verdict:
        pooled = self.checker.vision_model(pixel_values=self.pixels(image)).pooler_output
        embeds = F.normalize(self.checker.visual_projection(pooled).float())
        special = _scores(
            embeds, self.checker.special_care_embeds, self.checker.special_care_embeds_weights
        )
        # a special concept that is met makes those after it stricter, and all others
        met = special > 0
        for later in range(1, special.shape[1]):
            stricter = met[:, :later].any(dim=1).float() * _STRICTER
            met[:, later] = _rounded(special[:, later] + stricter) > 0
        stricter = met.any(dim=1, keepdim=True).float() * _STRICTER
        concepts = _scores(embeds, self.checker.concept_embeds, self.checker.concept_embeds_weights)
        scores = _rounded(concepts + stricter)
        return Verdict((scores > 0).any(dim=1), scores)

    def pixels(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 size size"]:
        """Input of the tower: the shorter side resized to its size, the middle cut out."""
        height, width = image.shape[-2:]
        scale = self.size / min(height, width)
        resized = F.interpolate(
            image,
            (max(self.size, int(height * scale)), max(self.size, int(width * scale))),
            mode="bicubic",
            antialias=True,
        ).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in resized.shape[-2:])
        middle = resized[..., top : top + self.size, left : left + self.size]
        return (middle - self.mean) / self.std


def _scores(
    embeds: Float[Tensor, "batch embed"],
    concepts: Float[Tensor, "concepts embed"],
    thresholds: Float[Tensor, " concepts"],
) -> Float[Tensor, "batch concepts"]:
    cosine = embeds @ F.normalize(concepts.float()).T
    return _rounded(cosine - thresholds.float())


def _rounded(scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return (scores * _THOUSANDS).round() / _THOUSANDS
