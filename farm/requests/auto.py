"""Requests that leave the choice of a method to the farm."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from farm.requests.base import BaseRequest, Strict

Choice = Literal["style_diffusion", "learnable_regions", "edit_infinity"]
Weight = Annotated[float, Field(ge=0, le=100)]


class AutoParameters(Strict):
    """What a user may set; the defaults are in `farm.runner.auto.AutoConfig`."""

    methods: tuple[Choice, ...] | None = None
    """Methods to choose from; left out: all that the model set has the networks for."""
    effort: Literal["cheap", "full"] = "cheap"
    """Try each method cheaply and do the edit with the best, or do it with every method and keep
    the best."""
    settings: dict[Choice, dict[str, Any]] = Field(default_factory=dict[Choice, dict[str, Any]])
    """Parameters of single methods, as their own requests have them; for the trial too, but for
    what makes it cheap."""
    text_weight: Weight | None = None
    """Of how much nearer to the target prompt the picture came, by CLIP."""
    background_weight: Weight | None = None
    """Of how much stays as it was outside the region that the results agree on."""
    structure_weight: Weight | None = None
    """Of how much of the picture's structure stays, by CLIP's tokens."""

    @model_validator(mode="after")
    def _some_methods(self) -> "AutoParameters":
        methods = self.methods
        if methods is not None and (not methods or len(set(methods)) < len(methods)):
            raise ValueError(
                f"methods {list(methods)}: name each method to choose from once, or leave it out"
            )
        return self


class AutoRequest(BaseRequest):
    """Edit with whichever method does it best, by figures that need no truth."""

    method: Literal["auto"] = "auto"
    parameters: AutoParameters = AutoParameters()
