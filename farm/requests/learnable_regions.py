"""Requests of Learnable Regions; names of the released program's flags are kept."""

from typing import Annotated, Literal

from pydantic import Field

from farm.requests.base import BaseRequest, Strict

Quirk = Literal[
    "no_gradient",
    "mirrored_boxes",
    "scrambled_roi",
    "corner_roi",
    "unsaved_projection",
    "unscaled_results",
    "sampled_inference",
    "border_rule",
    "released_schedule",
    "bare_caption",
    "raw_dino_pixels",
]
"""What the released program does and the paper does not say; PAPER.md explains each."""

Weight = Annotated[float, Field(ge=0, le=100)]
Steps = Annotated[int, Field(ge=1, le=500)]


class LearnableRegionsParameters(Strict):
    """What a user may set; what is left out is the model set's default."""

    point_number: Annotated[int, Field(ge=1, le=256)] | None = None
    """Anchors: places that regions are centred on."""
    max_window_size: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Largest half-width of a region, in cells of DINO's map."""
    min_window_size: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Smallest half-width, in the same cells."""
    window_step: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Between one size and the next; a fraction of a cell gives a finer set."""
    aspect_ratios: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] | None = None
    """Width over height of the regions of each size; (1,) are squares."""
    per_image_iteration: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Training iterations in an epoch."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """How often those iterations are gone through."""
    lr: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate of AnchorNet."""
    accum_grad: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Iterations whose gradients make one optimiser step."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Regions in flight at once, in units of `point_number`; changes no result."""
    loss_alpha: Weight | None = None
    """Of the CLIP loss."""
    loss_beta: Weight | None = None
    """Of the directional CLIP loss."""
    loss_gamma: Weight | None = None
    """Of the structure loss."""
    loss_delta: Weight | None = None
    """Of how little a region is what is salient."""
    test_alpha: Weight | None = None
    """Of the similarity to the text, in the final selection."""
    test_beta: Weight | None = None
    """Of the similarity to the source picture, in the final selection."""
    test_gamma: Weight | None = None
    """Of the inpainting model's own verdict, in the final selection; 0 does not ask it."""
    paste_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """What changed by no more than this within the region, of 1, keeps the original's pixels."""
    draw_box: bool | None = None
    """Give the input with all rendered regions drawn on it, too."""
    objective: Literal["expected", "gumbel", "reinforce"] | None = None
    """Exact expected loss of the whole table; straight-through Gumbel; or sampled without a table.
    """
    sizes: Literal["trained", "untrained", "random", "argmin", "all"] | None = None
    """Who chooses each anchor's size; all but "trained" are there to compare with."""
    grounding: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of what the words point at in where anchors lie; the rest is DINO's attention."""
    contrast: Annotated[float, Field(ge=0, le=1)] | None = None
    """Where words point: share of what inpainting sees otherwise under caption and target; the rest
    is CLIP's relevance."""
    extent: Annotated[float, Field(ge=0, le=1)] | None = None
    """What a region's fit (`loss_delta`) is measured by: share of what looks to DINO like the most
    salient place; the rest is the saliency itself."""
    num_steps: Steps | None = None
    """Steps of a full render."""
    preview_steps: Steps | None = None
    """Steps of the renders that the loss table is made of."""
    finalists: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Regions rendered in full."""
    draws: Annotated[int, Field(ge=1, le=256)] | None = None
    """Full renders of each of them, each from noise of its own; the best of all is the edit."""
    guidance_scale: Annotated[float, Field(ge=1, le=30)] | None = None
    """How strongly inpainting follows the words; 1 is without guidance."""
    template: Annotated[str, Field(max_length=200, pattern=r"\{\}")] | None = None
    """What `{}` is said in, for CLIP and for inpainting."""
    long_prompt: Literal["refuse", "truncate"] = "refuse"
    """What becomes of a prompt with more tokens than the text encoder takes."""
    anchornet: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A trained AnchorNet to start from."""
    train: bool = True
    """With `anchornet`: whether it is trained further on this picture, which needs the table."""
    quirks: tuple[Quirk, ...] = ()
    """Single peculiarities of the released program to bring back."""
    reference: bool = False
    """The released program's arithmetic, with all its quirks."""


class LearnableRegionsRequest(BaseRequest):
    """Find the region that the words mean, and let an inpainting model redraw it."""

    method: Literal["learnable_regions"] = "learnable_regions"
    parameters: LearnableRegionsParameters = LearnableRegionsParameters()
