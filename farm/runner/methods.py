"""The methods that the farm offers."""

from farm.requests import EditRequest
from farm.runner.method import MethodRun
from farm.runner.style_diffusion import plan_style_diffusion
from farm.zoo.model_sets import ModelSet


def plan_method(request: EditRequest, model_set: ModelSet) -> MethodRun:
    """The request's method, with everything checked that needs no image and no network.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    return plan_style_diffusion(request, model_set)
