"""Every number of the method; where each comes from is in PAPER.md under Numbers."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farm.methods.style_diffusion.windows import Window
from farm.requests import StyleDiffusionParameters

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InversionConfig(_Config):
    """What the inversion depends on; with image, prompt, seed and weights it is the stage's key."""

    num_steps: Annotated[int, Field(ge=2)] = 30
    """Timesteps T, of editing too."""
    guidance_scale: Annotated[float, Field(ge=1)] = 7.5
    """In the training objective and while editing."""
    inner_steps: Count = 100
    """Optimiser steps N at the noisiest timestep."""
    inner_decay: Annotated[float, Field(ge=0)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    lr_divisor: Count = 100
    attention_weight: Annotated[float, Field(ge=0)] = 1.0
    value_form: Literal["modulated", "direct"] = "modulated"
    """`embeds * s + b` with the network's two outputs, or the network's output itself."""
    stop_base: Annotated[float, Field(ge=0)] = 1e-5
    stop_slope: Annotated[float, Field(ge=0)] = 2e-5
    blocks: Count = 1
    """Hidden blocks of a mapping network."""

    def budget(self, index: int) -> int:
        """Optimiser steps at timestep `index`, 0 = noisiest: `ceil(N exp(-decay i))`."""
        return math.ceil(self.inner_steps * math.exp(-self.inner_decay * index))

    def learning_rate_at(self, index: int) -> float:
        """`lr (1 - i / 100)`; with more timesteps than that it falls to its end more slowly."""
        divisor = max(self.lr_divisor, self.num_steps)  # D4: never zero or below
        return self.learning_rate * (1 - index / divisor)

    def stop_below(self, index: int) -> float:
        """Total loss under which a timestep counts as solved."""
        return self.stop_base + self.stop_slope * index

    @property
    def total_budget(self) -> int:
        """Optimiser steps of all timesteps, if none stops early."""
        return sum(self.budget(index) for index in range(self.num_steps))


class EditingConfig(_Config):
    """How a target prompt is applied to an inversion (P2Plus)."""

    tau_v: Share = 0.5
    tau_c: Share = 0.6
    tau_s: Share = 0.6
    tau_u: Share = 0.0
    edit_type: Literal["replace", "refine"] | None = None
    """Words one for one, or words added and dropped; None: by the prompts' numbers of words."""
    equalizer: tuple[tuple[str, float], ...] = ()
    """Factors of the attention to words of the target prompt."""
    cross_windows: tuple[tuple[str, Window], ...] = ()
    """Words of the target prompt with a window of their own instead of (0, tau_c)."""
    local_blend: bool = True
    blend_threshold: Share = 0.3
    blend_pool: Literal[1, 3, 5] = 3
    """Cells of the map by which the blend's region is widened: their maximum counts."""
    blend_start: Share = 0.2
    paste_back: bool = True
    """With local blend: the original's own pixels outside the mask (PAPER.md, deviations)."""
    source_words: tuple[str, ...] | None = None
    """Words that the blend follows; None: those that change."""
    target_words: tuple[str, ...] | None = None
    reference: bool = False
    """Padding corresponds as in the released program (PAPER.md D2)."""


class StyleDiffusionConfig(_Config):
    """One configuration of the method."""

    inversion: InversionConfig = InversionConfig()
    editing: EditingConfig = EditingConfig()

    def with_parameters(self, parameters: StyleDiffusionParameters) -> "StyleDiffusionConfig":
        """This configuration with what a request sets; what it leaves out stays."""
        given = parameters.model_dump(exclude_none=True)
        inversion = {n: v for n, v in given.items() if n in InversionConfig.model_fields}
        editing = {n: v for n, v in given.items() if n in EditingConfig.model_fields}
        return StyleDiffusionConfig(
            inversion=InversionConfig(**(self.inversion.model_dump() | inversion)),
            editing=EditingConfig(**(self.editing.model_dump() | editing)),
        )


def paper() -> StyleDiffusionConfig:
    """The released program's main configuration with its recommended windows."""
    return StyleDiffusionConfig(
        inversion=InversionConfig(
            num_steps=30,  # spec §1; published PIE-Bench rows used 50
            guidance_scale=7.5,  # spec §1
            inner_steps=100,  # spec §6.2
            inner_decay=0.1,  # spec §6.2
            learning_rate=0.01,  # spec §6.3
            lr_divisor=100,  # spec §6.3, for every T
            attention_weight=1.0,  # spec §6.4
            value_form="modulated",  # spec §0.2 (D1)
            stop_base=1e-5,  # spec §6.4
            stop_slope=2e-5,  # spec §6.4
            blocks=1,  # spec §4
        ),
        editing=EditingConfig(
            tau_v=0.5,  # spec §7, recommended values
            tau_c=0.6,
            tau_s=0.6,
            tau_u=0.0,
            local_blend=True,  # spec §7, the program's command line; PIE-Bench rows are without
            blend_threshold=0.3,  # spec §7
            blend_start=0.2,  # spec §7
            paste_back=False,  # D8
        ),
    )


def scenes() -> StyleDiffusionConfig:
    """Defaults of the scenes model set: about 320 optimiser steps an image."""
    return StyleDiffusionConfig(
        inversion=InversionConfig(
            num_steps=20, guidance_scale=4.0, inner_steps=24, inner_decay=0.05
        ),
        # tuned on seed 5 (PAPER.md): a cell of the 16 x 16 maps is four pixels wide here, so the
        # blend is not widened, and the source's layout is kept by self-attention
        editing=EditingConfig(
            tau_v=0.2, tau_c=0.4, tau_s=0.8, tau_u=0.0, blend_threshold=0.4, blend_pool=1
        ),
    )


def tiny() -> StyleDiffusionConfig:
    """For tests: every stage runs, in a moment."""
    return StyleDiffusionConfig(
        inversion=InversionConfig(num_steps=4, guidance_scale=3.0, inner_steps=3),
        editing=EditingConfig(),
    )
