"""Requests of StyleDiffusion."""

from typing import Annotated, Literal

from pydantic import Field

from farm.requests.base import BaseRequest, Strict, Tau, Word


class StyleDiffusionParameters(Strict):
    """What a user may set; what is left out is the model set's default."""

    num_steps: Annotated[int, Field(ge=2, le=200)] | None = None
    """Timesteps T of inversion and editing."""
    guidance_scale: Annotated[float, Field(ge=1, le=30)] | None = None
    inner_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Optimiser steps at the noisiest timestep; the budget decays from there."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    attention_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    value_form: Literal["modulated", "direct"] | None = None
    """`c·s + b` as released, or the mapping network's output itself as in the paper."""
    tau_v: Tau | None = None
    """Share of steps in which the target row's values are the learned ones."""
    tau_c: Tau | None = None
    """Share of steps in which the target takes the source's cross-attention."""
    tau_s: Tau | None = None
    """Share of steps in which the target takes the source's self-attention."""
    tau_u: Tau | None = None
    """The same for the unconditional branch."""
    local_blend: bool | None = None
    """Keep what lies outside the words' attention."""
    blend_threshold: Tau | None = None
    blend_start: Tau | None = None
    paste_back: bool | None = None
    """With local blend: keep the original's own pixels where nothing was to change."""
    source_words: tuple[Word, ...] | None = None
    """Words of the source prompt that the blend follows; by default the words that change."""
    target_words: tuple[Word, ...] | None = None
    reference: bool = False
    """Reproduce the released code's arithmetic, quirks included."""


class StyleDiffusionRequest(BaseRequest):
    method: Literal["style_diffusion"] = "style_diffusion"
    parameters: StyleDiffusionParameters = StyleDiffusionParameters()
