"""What a user may ask for: checked by pydantic, discriminated by `method`."""

from farm.requests.auto import AutoParameters, AutoRequest
from farm.requests.edit_infinity import EditInfinityParameters, EditInfinityRequest
from farm.requests.learnable_regions import (
    LearnableRegionsParameters,
    LearnableRegionsRequest,
)
from farm.requests.parsing import METHODS, EditRequest, describe, parse_request
from farm.requests.style_diffusion import (
    GENERATED,
    FurtherTarget,
    Interval,
    StyleDiffusionParameters,
    StyleDiffusionRequest,
)

__all__ = [
    "GENERATED",
    "METHODS",
    "AutoParameters",
    "AutoRequest",
    "EditInfinityParameters",
    "EditInfinityRequest",
    "EditRequest",
    "FurtherTarget",
    "Interval",
    "LearnableRegionsParameters",
    "LearnableRegionsRequest",
    "StyleDiffusionParameters",
    "StyleDiffusionRequest",
    "describe",
    "parse_request",
]
