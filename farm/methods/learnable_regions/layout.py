"""What stage 2 knows before anything is drawn: where anchors are, and their boxes."""

from collections.abc import Generator

import torch
from jaxtyping import Float
from torch import Tensor

from farm.images import fit_to_model
from farm.losses.clip import text_direction
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.analysis import scored_square
from farm.methods.learnable_regions.anchor_net import RegionFeatures
from farm.methods.learnable_regions.anchors import (
    cumulative_mass,
    mean_attention,
    pick_anchors,
    released_anchors,
    saliency_map,
    seen_cells,
)
from farm.methods.learnable_regions.boxes import (
    cell_boxes,
    in_original,
    misfits,
    size_set,
    square_pixels,
)
from farm.methods.learnable_regions.config import LearnableRegionsConfig
from farm.methods.learnable_regions.contrast import grounded, prompt_contrast
from farm.methods.learnable_regions.extent import thing_extent
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.plan import PromptPlan, region_spec
from farm.methods.learnable_regions.searched import SearchState
from farm.methods.learnable_regions.work import contrasts
from farm.progress import Progress


def lay_out(
    image: Float[Tensor, "3 height width"],
    analysis: Analysis,
    prompts: PromptPlan,
    client: RegionBackbones,
    config: LearnableRegionsConfig,
    *,
    seed: int,
) -> Generator[Progress, None, SearchState]:
    """Anchors and boxes, with an empty table; the seed is of the noise of the contrast.

    Yields:
        Where the contrast is asked for, one `Progress` a lot of its questions.

    Raises:
        InvalidPromptError: to CLIP both prompts mean the same.
        InvalidRequestError: there are more anchors than cells that show the picture.
    """
    anchors_config = config.search.anchors
    spec = region_spec(client.spec)
    target = client.score_text(prompts.target)
    direction = text_direction(analysis.text, target)
    embeds = client.embed_prompt(prompts.target)
    source_embeds = client.embed_prompt(prompts.source)
    relevance = None
    if anchors_config.grounding > 0:
        square, _ = scored_square(image, client, config.analysis)
        # D3: what makes the picture look like its caption and not like the target is replaced
        relevance = client.relevance(square, -direction)
        contrast = None
        if contrasts(anchors_config):  # D13
            both = (source_embeds, embeds)
            contrast = yield from prompt_contrast(
                square, both, client, anchors_config.probe, seed=seed
            )
        relevance = grounded(relevance, contrast, anchors_config.contrast)
    attention, grounding = mean_attention(analysis.attention), anchors_config.grounding
    saliency = saliency_map(attention, relevance, grounding, anchors_config.smoothing)
    focused = saliency_map(attention, relevance, grounding, anchors_config.focus)
    _, placement = fit_to_model(image, spec.dino_size, mode=config.analysis.fit)
    allowed = seen_cells(placement, spec.grid)
    if anchors_config.extent > 0:  # D15
        reach = thing_extent(analysis.features, saliency, allowed)
        focused = (1 - anchors_config.extent) * focused + anchors_config.extent * reach
    count = anchors_config.point_number
    if config.search.quirks.border_rule:
        window = int(anchors_config.max_window_size)
        anchors = released_anchors(cumulative_mass(saliency), count, window)
    else:
        anchors = pick_anchors(saliency, count, anchors_config.distance, allowed)
    released = anchors_config.box_rule == "released"
    cells = cell_boxes(
        anchors,
        size_set(anchors_config),
        spec.grid,
        released=released,
        mirrored=config.search.quirks.mirrored_boxes,
    )
    pixels = square_pixels(cells, spec.grid, spec.dino_size, released=released)
    boxes = torch.tensor(in_original(pixels.flatten(0, 1), placement)).view(cells.shape)
    return SearchState(
        target=target,
        embeds=embeds,
        source_embeds=source_embeds,
        uncond_embeds=client.embed_prompt(prompts.empty),
        saliency=saliency,
        anchors=anchors,
        cells=cells,
        boxes=boxes,
        misfits=misfits(cells, focused),
        table=torch.full(cells.shape[:2], torch.nan),
    )


def region_features(
    analysis: Analysis, state: SearchState, config: LearnableRegionsConfig
) -> RegionFeatures:
    """What AnchorNet sees of a picture with these anchors."""
    return RegionFeatures(
        features=analysis.features,
        saliency=state.saliency,
        boxes=state.cells,
        centred=config.search.anchors.box_rule == "centred",
    )
