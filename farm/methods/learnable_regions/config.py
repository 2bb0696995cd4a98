"""Every number of the method; where each comes from is in PAPER.md under Numbers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from farm.errors import InvalidRequestError
from farm.regions import DinoFeature, StructureLayer
from farm.requests import describe
from farm.requests.learnable_regions import LearnableRegionsParameters

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Objective = Literal["expected", "gumbel", "reinforce"]
Chooser = Literal["trained", "untrained", "random", "argmin", "all"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quirks(_Config):
    """What the released program does and the paper does not say (spec §9); all off by default."""

    no_gradient: bool = False
    """Q1: the training loop trains nothing, so it is left out."""
    mirrored_boxes: bool = False
    """Q2: rows are taken for x and columns for y."""
    scrambled_roi: bool = False
    """Q3: features of sizes and anchors are reshaped where they should be transposed."""
    corner_roi: bool = False
    """Q4: regions are scaled by 1/8 once more, so features come from the top left corner."""
    unsaved_projection: bool = False
    """Q5: the projection of the features is random, neither trained nor kept."""
    unscaled_results: bool = False
    """Q6: results enter CLIP as 0 to 255, the source as 0 to 1."""
    sampled_inference: bool = False
    """Q7: sizes are drawn, not chosen, and the noise is that of seed 0."""
    border_rule: bool = False
    """Q8: anchors keep the largest window's distance to the border, and no other."""
    released_schedule: bool = False
    """Q9: the schedule moves before its step, and a step is made at iteration 0 and every 25th."""
    bare_caption: bool = False
    """Q9: the source's text is not put into the template."""
    raw_dino_pixels: bool = False
    """Q9: DINO sees pixels without mean and deviation."""

    @classmethod
    def all(cls) -> "Quirks":
        """The released program."""
        return cls(**dict.fromkeys(cls.model_fields, True))


class AnalysisConfig(_Config):
    """What the analysis of a source depends on; with image, caption, seed, weights its key."""

    fit: Literal["pad", "crop"] = "pad"
    """The whole picture in the networks' square, or its middle."""
    features: DinoFeature = "tokens"
    """What AnchorNet sees of DINO."""
    structure_layer: StructureLayer = "before_last"
    num_views: Count = 16
    template: str = "a high quality image of {}."
    quirks: Quirks = Quirks()


class ProbeConfig(_Config):
    """How often the inpainting model is asked about a whole picture."""

    levels: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.3, 0.45, 0.6, 0.75)
    """Timesteps over the last one: how much noise is laid on them."""
    noises: Count = 4
    """Of each level."""

    @property
    def forwards(self) -> int:
        """Of the UNet, for one prompt."""
        return len(self.levels) * self.noises


class AnchorConfig(_Config):
    """Where regions are centred and how large they may be."""

    point_number: Count = 9
    distance: Weight = 3.0
    """Cells that anchors keep from each other, while there is room."""
    smoothing: Weight = 1.0
    """Deviation, in cells, of the Gaussian that saliency is smoothed with before its peaks count.
    """
    grounding: Share = 0.0
    """Share of what the words point at in the saliency; the rest is DINO's attention."""
    contrast: Share = 0.0
    """Share of the inpainting model's contrast in what the words point at; the rest is CLIP's
    relevance."""
    probe: ProbeConfig = ProbeConfig()
    """Of the contrast."""
    focus: Weight = 0.5
    """Deviation of the Gaussian, in cells, under which regions are compared with the saliency."""
    extent: Share = 0.0
    """Share of the box about what looks like the most salient cells in what regions are compared
    with; the rest is the saliency itself."""
    min_window_size: Positive = 4.0
    max_window_size: Positive = 14.0
    """Half-widths in cells."""
    window_step: Positive = 2.0
    aspect_ratios: tuple[Positive, ...] = (1.0,)
    """Width over height; the area is the square's."""
    box_rule: Literal["centred", "released"] = "centred"
    """Around the middle of the anchor's cell; or between whole cells, in the program's pixels."""

    @model_validator(mode="after")
    def _sizes_in_order(self) -> "AnchorConfig":
        if self.min_window_size > self.max_window_size:
            raise ValueError(
                f"max_window_size is {self.max_window_size:g}, below the smallest window "
                f"(min_window_size {self.min_window_size:g}): raise it, or lower the other"
            )
        return self

    @property
    def half_widths(self) -> tuple[float, ...]:
        """Half the sides of the square sizes, smallest first."""
        return tuple(self.min_window_size + self.window_step * n for n in range(self._num_widths))

    @property
    def num_sizes(self) -> int:
        """Sizes of each anchor, counted without making them."""
        return self._num_widths * len(self.aspect_ratios)

    @property
    def _num_widths(self) -> int:
        span = self.max_window_size - self.min_window_size
        steps = min(span / self.window_step, 1e9)  # a step of almost nothing gives infinitely many
        return int(steps + 1e-6) + 1  # 0.3 / 0.1 is a little under 3


class NetworkConfig(_Config):
    """AnchorNet's layers."""

    roi_size: Count = 8
    channels: Count = 12
    """That features are projected to."""
    hidden: Count = 8
    squeezed: Count = 4
    neurons: Count = 4
    saliency: bool = True
    """Whether the saliency that anchors come from is one more channel."""


class TrainingConfig(_Config):
    """How AnchorNet is trained on one picture."""

    objective: Objective = "expected"
    lr: Positive = 3e-3
    epochs: Count = 5
    per_image_iteration: Count = 10
    steps_per_iteration: Count = 4
    """Optimiser steps an iteration: the table makes them free."""
    accum_grad: Count = 1
    beta1: Share = 0.9
    beta2: Share = 0.96
    weight_decay: Weight = 0.0
    temperature: Positive = 1.0
    """Of the Gumbel form."""

    @property
    def iterations(self) -> int:
        """Gradients that are computed."""
        return self.epochs * self.per_image_iteration * self.steps_per_iteration


class LossConfig(_Config):
    """Weights of a region's loss."""

    alpha: Weight = 1.0
    beta: Weight = 1.0
    gamma: Weight = 1.0
    delta: Weight = 0.0
    """Of how little the region is what is salient."""


class RenderConfig(_Config):
    """How a region is drawn."""

    guidance_scale: Annotated[float, Field(ge=1)] = 7.5
    spacing: Literal["trailing", "leading"] = "trailing"
    """Timesteps from the noisiest one on, or as Stable Diffusion's own pipelines take them."""
    context: Annotated[float, Field(ge=1)] = 2.0
    """Side of the crop around a region over the region's longer side."""
    feather: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Width of the soft rim inside a region, over the region's shorter side."""
    paste: bool = True
    """Keep the original's own pixels outside the region, bit by bit."""


class SearchConfig(_Config):
    """What the search for regions depends on, besides the analysis and the target prompt."""

    anchors: AnchorConfig = AnchorConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    loss: LossConfig = LossConfig()
    render: RenderConfig = RenderConfig()
    chooser: Chooser = "trained"
    train: bool = True
    """Whether a network that was handed in is trained further."""
    preview_steps: Count = 6
    """DDIM steps of the renders in the loss table."""
    batch_size: Count = 1
    """Regions in flight at once, in units of `point_number`; changes no result."""
    quirks: Quirks = Quirks()


class SelectionConfig(_Config):
    """Which of the chosen regions becomes the edit."""

    rungs: tuple[tuple[Count, Count], ...] = ((3, 50),)
    """(how many regions go on, DDIM steps of their render); the last one's renders are results."""
    draws: Count = 1
    """Full renders of each region of the last rung, each from noise of its own."""
    test_alpha: Weight = 2.0
    test_beta: Weight = 1.0
    test_gamma: Weight = 0.0
    """Of the inpainting model's own verdict; 0 does not ask it."""
    probe: ProbeConfig = ProbeConfig(levels=(0.2, 0.4, 0.6), noises=3)
    """Of the verdict."""
    rule: Literal["cosine", "released"] = "cosine"
    """Cosines as they are; or through a softmax, among the three nearest to the text."""
    paste_threshold: Share = 0.0
    """What changed by no more than this within the winner keeps the original's own pixels; 0: all
    that was drawn is pasted."""
    draw_box: bool = False


class LearnableRegionsConfig(_Config):
    """One configuration of the method."""

    analysis: AnalysisConfig = AnalysisConfig()
    search: SearchConfig = SearchConfig()
    selection: SelectionConfig = SelectionConfig()

    def with_parameters(self, parameters: LearnableRegionsParameters) -> "LearnableRegionsConfig":
        """This configuration with what a request sets; what it leaves out stays.

        `reference` takes the released program's configuration as the start instead.

        Raises:
            InvalidRequestError: what is set does not go together.
        """
        base = reference() if parameters.reference else self
        tree: dict[str, Any] = base.model_dump()
        for name, places in _PLACES.items():
            value = getattr(parameters, name)
            if value is not None:
                for place in places:
                    _set(tree, place, value)
        if parameters.finalists is not None or parameters.num_steps is not None:
            *earlier, (keep, steps) = base.selection.rungs
            last = (parameters.finalists or keep, parameters.num_steps or steps)
            kept = [rung for rung in earlier if rung[0] > last[0] and rung[1] < last[1]]
            tree["selection"]["rungs"] = (*kept, last)
        for quirk in parameters.quirks:
            for part in ("analysis", "search"):
                tree[part]["quirks"][quirk] = True
        try:
            return LearnableRegionsConfig.model_validate(tree)
        except ValidationError as error:
            raise InvalidRequestError(describe(error)) from error


_PLACES: dict[str, tuple[str, ...]] = {
    "point_number": ("search.anchors.point_number",),
    "max_window_size": ("search.anchors.max_window_size",),
    "min_window_size": ("search.anchors.min_window_size",),
    "window_step": ("search.anchors.window_step",),
    "aspect_ratios": ("search.anchors.aspect_ratios",),
    "grounding": ("search.anchors.grounding",),
    "contrast": ("search.anchors.contrast",),
    "extent": ("search.anchors.extent",),
    "per_image_iteration": ("search.training.per_image_iteration",),
    "epochs": ("search.training.epochs",),
    "lr": ("search.training.lr",),
    "accum_grad": ("search.training.accum_grad",),
    "objective": ("search.training.objective",),
    "batch_size": ("search.batch_size",),
    "loss_alpha": ("search.loss.alpha",),
    "loss_beta": ("search.loss.beta",),
    "loss_gamma": ("search.loss.gamma",),
    "loss_delta": ("search.loss.delta",),
    "draws": ("selection.draws",),
    "test_alpha": ("selection.test_alpha",),
    "test_beta": ("selection.test_beta",),
    "test_gamma": ("selection.test_gamma",),
    "paste_threshold": ("selection.paste_threshold",),
    "draw_box": ("selection.draw_box",),
    "sizes": ("search.chooser",),
    "preview_steps": ("search.preview_steps",),
    "guidance_scale": ("search.render.guidance_scale",),
    "template": ("analysis.template",),
    "train": ("search.train",),
}
"""Where a parameter goes; those that need more than that are in `with_parameters`."""


def _set(tree: dict[str, Any], place: str, value: Any) -> None:
    *folders, name = place.split(".")
    for folder in folders:
        tree = tree[folder]
    tree[name] = value


def paper() -> LearnableRegionsConfig:
    """The paper, with what it leaves open as in PAPER.md."""
    return LearnableRegionsConfig(
        analysis=AnalysisConfig(structure_layer="last"),  # spec §2, the paper's L_str
        search=SearchConfig(
            anchors=AnchorConfig(
                point_number=8,  # spec §6, from a secondary source
                min_window_size=2.0,  # M = 7 squares (spec §6); their sides are ours
                max_window_size=14.0,
                window_step=2.0,
            ),
            network=NetworkConfig(roi_size=7),  # spec §6
            training=TrainingConfig(lr=3e-3, epochs=5),  # spec §6
            preview_steps=8,  # spec §8, "prune"
        ),
        selection=SelectionConfig(rungs=((3, 25),)),  # spec §8, "prune"
    )


def scenes() -> LearnableRegionsConfig:
    """Defaults of the scenes model set: at most 6 full renders' worth of work an edit.

    Tuned on seeds 5 and 6 (PAPER.md).
    """
    return LearnableRegionsConfig(
        analysis=AnalysisConfig(template="{}"),  # its CLIP knows captions, not templates
        search=SearchConfig(
            anchors=AnchorConfig(
                point_number=4,
                distance=1.0,
                smoothing=2.2,
                grounding=0.9,
                contrast=0.5,
                extent=1.0,
                min_window_size=2.75,
                max_window_size=4.75,
                window_step=0.5,
            ),
            training=TrainingConfig(lr=0.01),
            loss=LossConfig(gamma=2.0, delta=3.0),
            render=RenderConfig(guidance_scale=4.0),
            preview_steps=5,
        ),
        selection=SelectionConfig(rungs=((1, 20),), draws=4, test_gamma=10.0, paste_threshold=0.16),
    )


def reference() -> LearnableRegionsConfig:
    """The released program with its README's command, and all its quirks (spec §§1, 4, 9)."""
    quirks = Quirks.all()
    return LearnableRegionsConfig(
        analysis=AnalysisConfig(fit="crop", quirks=quirks),
        search=SearchConfig(
            anchors=AnchorConfig(
                point_number=9,
                smoothing=0.0,
                min_window_size=4.0,
                max_window_size=15.0,
                window_step=2.0,
                box_rule="released",
            ),
            network=NetworkConfig(saliency=False),
            training=TrainingConfig(
                lr=5e-3,
                epochs=1,
                per_image_iteration=10,
                steps_per_iteration=1,
                accum_grad=25,
                weight_decay=4.5e-2,
                objective="gumbel",
            ),
            render=RenderConfig(spacing="leading", paste=False),  # D10
            quirks=quirks,
        ),
        selection=SelectionConfig(rungs=((9, 50),), rule="released"),
    )


def tiny() -> LearnableRegionsConfig:
    """For tests: every stage runs, in a moment."""
    return LearnableRegionsConfig(
        analysis=AnalysisConfig(template="a picture of {}", num_views=3),
        search=SearchConfig(
            anchors=AnchorConfig(
                point_number=2,
                distance=1.0,
                smoothing=0.5,
                grounding=0.5,
                min_window_size=1.0,
                max_window_size=2.0,
                window_step=1.0,
            ),
            training=TrainingConfig(lr=0.01, epochs=1, per_image_iteration=3),
            render=RenderConfig(guidance_scale=2.0, context=1.5),
            preview_steps=2,
        ),
        selection=SelectionConfig(rungs=((2, 3), (1, 4))),
    )
