"""What a user may ask for: checked by pydantic, discriminated by `method`."""

from farm.requests.parsing import EditRequest, describe, parse_request
from farm.requests.style_diffusion import (
    GENERATED,
    FurtherTarget,
    Interval,
    StyleDiffusionParameters,
    StyleDiffusionRequest,
)

__all__ = [
    "GENERATED",
    "EditRequest",
    "FurtherTarget",
    "Interval",
    "StyleDiffusionParameters",
    "StyleDiffusionRequest",
    "describe",
    "parse_request",
]
