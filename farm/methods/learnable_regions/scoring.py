"""What an edited picture costs, and how near it is to the words and to the source."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from farm.errors import EditDivergedError
from farm.losses.clip import clip_loss, directional_loss, text_direction, text_similarity
from farm.losses.structure import structure_loss
from farm.losses.views import Views
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.analysis import views_of
from farm.methods.learnable_regions.config import AnalysisConfig, LossConfig, Quirks
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.regions import StructureLayer

_UNSCALED = 255.0


@dataclass(frozen=True)
class Aim:
    """What pictures of one edit are judged by.

    Attributes:
        analysis: of the source.
        target: CLIP's embedding of the target prompt.
        direction: from the caption's embedding there.
        weights: of the losses.
        views: random views, the same of all.
        layer: whose tokens show structure.
        scale: that results are multiplied by first; 255 with Q6.
    """

    analysis: Analysis
    target: Float[Tensor, " embed"]
    direction: Float[Tensor, " embed"]
    weights: LossConfig
    views: Views
    layer: StructureLayer
    scale: float


@dataclass(frozen=True)
class RegionScore:
    """One picture's figures.

    Attributes:
        loss: α clip + β directional + γ structure + δ misfit.
        clip: 0 to 2.
        directional: 0 to 2.
        structure: 0 to 4.
        text: cosine with the target prompt.
        image: cosine with the source.
        misfit: of the region; 0 to 1.
    """

    loss: float
    clip: float
    directional: float
    structure: float
    text: float
    image: float
    misfit: float


def build_aim(
    analysis: Analysis,
    target: Float[Tensor, " embed"],
    weights: LossConfig,
    config: AnalysisConfig,
    quirks: Quirks,
    *,
    seed: int,
) -> Aim:
    """The aim of an edit.

    Raises:
        InvalidPromptError: to CLIP both prompts mean the same.
    """
    return Aim(
        analysis=analysis,
        target=target,
        direction=text_direction(analysis.text, target),
        weights=weights,
        views=views_of(config, seed),
        layer=config.structure_layer,
        scale=_UNSCALED if quirks.unscaled_results else 1.0,
    )


def score_pictures(
    pictures: Sequence[Float[Tensor, "3 size size"]],
    misfits: Sequence[float],
    aim: Aim,
    client: RegionBackbones,
) -> list[RegionScore]:
    """Figures of each picture; one forward of CLIP a view, and one for the whole.

    With results 255 times too bright (Q6) another one: the final rule asks CLIP about the picture
    as it is (spec §5), for the quirk is in the losses alone.

    Args:
        pictures: with one region drawn in each.
        misfits: of these regions (`boxes.misfits`).
        aim: of the edit.
        client: the frozen networks.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    wholes = client.score_images(pictures, layer=aim.layer, scale=aim.scale)
    views = client.score_views(pictures, aim.views, scale=aim.scale)
    plain = wholes if aim.scale == 1 else client.score_images(pictures, layer=aim.layer)
    scores: list[RegionScore] = []
    for whole, as_it_is, seen, misfit in zip(wholes, plain, views, misfits, strict=True):
        clip = clip_loss(seen, aim.target).item()
        directional = directional_loss(seen, aim.analysis.views, aim.direction).item()
        structure = structure_loss(whole.tokens, aim.analysis.tokens).item()  # D9
        weights = aim.weights
        loss = weights.alpha * clip + weights.beta * directional + weights.gamma * structure
        loss += weights.delta * misfit  # D11
        if not abs(loss) < float("inf"):
            raise EditDivergedError(
                f"a region's loss is {loss} (clip {clip}, directional {directional}, structure "
                f"{structure}): lower guidance_scale or take another seed"
            )
        scores.append(
            RegionScore(
                loss=loss,
                clip=clip,
                directional=directional,
                structure=structure,
                text=text_similarity(as_it_is.embed, aim.target).item(),
                image=text_similarity(as_it_is.embed, aim.analysis.embed).item(),
                misfit=misfit,
            )
        )
    return scores
