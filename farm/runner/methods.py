"""The methods that the farm offers."""

from farm.images import DecodedImage
from farm.requests import (
    AutoRequest,
    EditInfinityRequest,
    EditRequest,
    LearnableRegionsRequest,
)
from farm.runner.edit_infinity import plan_edit_infinity
from farm.runner.learnable_regions import plan_learnable_regions
from farm.runner.method import MethodRun
from farm.runner.style_diffusion import plan_style_diffusion
from farm.zoo.model_sets import ModelSet


def plan_method(
    request: EditRequest, model_set: ModelSet, original: DecodedImage, mask: bytes | None
) -> MethodRun:
    """The request's method, with everything checked that needs no network.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    assert not isinstance(request, AutoRequest), "it chooses among these (farm.runner.auto)"
    if isinstance(request, LearnableRegionsRequest):
        return plan_learnable_regions(request, model_set)
    if isinstance(request, EditInfinityRequest):
        return plan_edit_infinity(request, model_set, original, mask)
    return plan_style_diffusion(request, model_set)
