"""Stage 1: what the networks say of the source; no word of the target is needed."""

from collections.abc import Generator

from jaxtyping import Float
from torch import Tensor

from farm.images import Placement, fit_to_model
from farm.losses.views import Views, sample_views
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.config import AnalysisConfig
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.plan import PromptPlan, region_spec
from farm.progress import Progress
from farm.training import keyed_generator

STAGE = "learnable_regions.analysis"
_STEPS = 3


def analyse(
    image: Float[Tensor, "3 height width"],
    prompts: PromptPlan,
    client: RegionBackbones,
    config: AnalysisConfig,
    *,
    seed: int,
) -> Generator[Progress, None, Analysis]:
    """DINO's attention and features, CLIP's views and tokens of the source, its caption.

    Costs one forward of DINO, one of CLIP's text tower, and one of its image tower a view and for
    the whole.

    Args:
        image: the original at its own resolution, in [0, 1].
        prompts: of the edit; the caption alone is used.
        client: the frozen networks.
        config: numbers of this stage.
        seed: of the views.

    Yields:
        One `Progress` per question.
    """
    size = region_spec(client.spec).dino_size
    seen, _ = fit_to_model(image, size, mode=config.fit)
    found = client.dino(seen, features=config.features, normalise=not config.quirks.raw_dino_pixels)
    yield Progress(STAGE, 1, _STEPS)
    square, _ = scored_square(image, client, config)
    (score,) = client.score_images([square], layer=config.structure_layer)
    yield Progress(STAGE, 2, _STEPS)
    (views,) = client.score_views([square], views_of(config, seed))
    text = client.score_text(prompts.source)
    yield Progress(STAGE, _STEPS, _STEPS)
    rows, columns = found.attention.shape[1:]
    return Analysis(
        attention=found.attention,
        features=found.features.T.unflatten(1, (rows, columns)).contiguous(),
        embed=score.embed,
        tokens=score.tokens,
        views=views,
        text=text,
    )


def views_of(config: AnalysisConfig, seed: int) -> Views:
    """The views of an edit: the same of source and results, so that only edits differ (D8)."""
    return sample_views(config.num_views, keyed_generator(seed, STAGE, "views"))


def scored_square(
    image: Float[Tensor, "3 height width"], client: RegionBackbones, config: AnalysisConfig
) -> tuple[Float[Tensor, "3 size size"], Placement]:
    """The picture as CLIP is shown it, before its own resizing."""
    return fit_to_model(image, client.spec.image_size, mode=config.fit)
