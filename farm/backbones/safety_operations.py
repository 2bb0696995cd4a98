"""The operation of the safety checker, and what it takes."""

from collections.abc import Mapping

import torch

from farm.backbones.inputs import Inputs, Takes
from farm.backbones.networks import Networks
from farm.calls import Batch, Operation, Static, Tensors


def check(networks: Networks, tensors: Tensors, static: Static) -> Batch:
    """Whether `image` in [0, 1] should not be shown, and how near each concept is."""
    del static
    assert networks.safety is not None, "a host without a checker has not this operation"
    with torch.no_grad():
        found = networks.safety(tensors["image"])
    return Batch({"flagged": found.flagged, "scores": found.scores}, {"safety_forward": 1})


SAFETY_OPERATIONS: Mapping[str, Operation] = {"safety.check": check}
SAFETY_INPUTS: Mapping[str, Inputs] = {"safety.check": {"image": Takes("3 any any")}}
