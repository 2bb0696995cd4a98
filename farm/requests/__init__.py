"""What a user may ask for: checked by pydantic, discriminated by `method`."""

from farm.requests.parsing import EditRequest, describe, parse_request
from farm.requests.style_diffusion import StyleDiffusionParameters, StyleDiffusionRequest

__all__ = [
    "EditRequest",
    "StyleDiffusionParameters",
    "StyleDiffusionRequest",
    "describe",
    "parse_request",
]
