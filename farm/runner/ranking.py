"""Which of several edits of one picture is best, by figures that need no truth.

Never a judge: what ranks here must not be what an evaluation measures with.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.losses.clip import text_similarity
from farm.losses.structure import structure_loss
from farm.masks import dilate
from farm.regions import ImageScore

Image = Float[Tensor, "3 height width"]
Map = Float[Tensor, "height width"]

MARGIN = 0.03
"""Of the picture's longer side, by which a region is widened before what is outside it counts."""
_WORST_PSNR, _BEST_PSNR = 15.0, 45.0
"""Background kept is 0 at the first and 1 at the second."""


@dataclass(frozen=True)
class Weights:
    """What each figure counts."""

    text: float
    background: float
    structure: float


@dataclass(frozen=True)
class Standing:
    """How a result does.

    Attributes:
        text: how much nearer CLIP puts it to the target prompt than to the source prompt, above
            where it puts the source; -4 to 4, 0 for an edit that does nothing.
        background: of what lies outside the agreed region, 0 (lost) to 1 (kept); 1 where all is in.
        structure: of CLIP's tokens, 1 (kept) downwards.
        score: all of them with their weights.
    """

    text: float
    background: float
    structure: float
    score: float

    def figures(self) -> dict[str, float]:
        """By name."""
        return {
            "score": self.score,
            "text": self.text,
            "background": self.background,
            "structure": self.structure,
        }


def agreed_region(masks: Sequence[Map]) -> Map:
    """Where at least half of the masks are set; all methods' say counts alike."""
    return (torch.stack(list(masks)).mean(dim=0) >= 0.5).float()


def background_kept(edited: Image, source: Image, region: Map) -> float:
    """PSNR outside a region, widened a little, between 15 and 45 dB as 0 to 1."""
    margin = max(1, round(MARGIN * max(region.shape)))
    outside = 1 - dilate(region[None, None], margin)[0, 0]
    if not outside.any():
        return 1.0
    error = ((edited - source).square().mean(dim=0) * outside).sum() / outside.sum()
    psnr = -10 * math.log10(max(error.item(), 1e-12))
    return min(1.0, max(0.0, (psnr - _WORST_PSNR) / (_BEST_PSNR - _WORST_PSNR)))


def text_gain(
    edited: Float[Tensor, " embed"],
    source: Float[Tensor, " embed"],
    texts: tuple[Float[Tensor, " embed"], Float[Tensor, " embed"]],
) -> float:
    """Gain of (cosine with the target's text minus cosine with the source's) over the source.

    Args:
        edited: CLIP's embedding of the result.
        source: of the picture as it was.
        texts: of the source prompt and of the target prompt.
    """

    def margin(embed: Float[Tensor, " embed"]) -> float:
        was, asked = (text_similarity(embed[None], text).item() for text in texts)
        return asked - was

    return margin(edited) - margin(source)


def standing(
    score: ImageScore,
    source: ImageScore,
    texts: tuple[Float[Tensor, " embed"], Float[Tensor, " embed"]],
    background: float,
    weights: Weights,
) -> Standing:
    """All figures of a result.

    Args:
        score: what CLIP sees in it.
        source: what CLIP sees in the picture as it was.
        texts: CLIP's embeddings of both prompts.
        background: see `background_kept`.
        weights: of the figures.
    """
    text = text_gain(score.embed, source.embed, texts)
    structure = 1 - structure_loss(score.tokens, source.tokens).item()
    total = weights.text * text + weights.background * background + weights.structure * structure
    return Standing(text, background, structure, total)


def ranked(standings: Mapping[str, Standing]) -> list[str]:
    """Names from the best down; equal scores in their given order."""
    return sorted(standings, key=lambda name: -standings[name].score)


def reasons(best: str, standings: Mapping[str, Standing]) -> list[str]:
    """Sentences that say why the best is before each other."""
    found: list[str] = []
    winner = standings[best].figures()
    for name in ranked(standings):
        if name == best:
            continue
        other = standings[name].figures()
        gains = {figure: winner[figure] - other[figure] for figure in winner}
        said = [
            f"{_SAYS[figure]} {'more' if gains[figure] > 0 else 'less'} ({gains[figure]:+.3f})"
            for figure in _SAYS
            if abs(gains[figure]) >= 0.0005
        ]
        what = ", ".join(said) or "no figure tells them apart"
        found.append(f"{best} before {name} by {gains['score']:.3f}: {what}")
    return found


_SAYS = {
    "text": "agrees with the target prompt",
    "background": "keeps the background",
    "structure": "keeps the structure",
}
