"""The operations of an Infinity for a host of many networks: routed to it, with what they take."""

from collections.abc import Mapping
from typing import Any

from farm.backbones.infinity.networks import InfinityNetworks
from farm.backbones.infinity.operations import OPERATIONS
from farm.backbones.inputs import Inputs, Takes
from farm.backbones.networks import Networks
from farm.backbones.rows import State
from farm.calls import Batch, Midway, Operation, Static, Stepped, Tensors

_TEXT = Takes("any infinity_text_width")
_BYTES = Takes("any", "byte")
_NUMBER = Takes()
_SCALES = Takes("any")
_ADAPTERS: Inputs = {
    "lora": Takes("any", optional=True),
    "lora_scale": Takes(optional=True),
}
_TRAINING: Inputs = {
    "text": _TEXT,
    "features": Takes("infinity_bits any any"),
    "flips": _BYTES,
    "branch_scale": Takes("infinity_blocks 2"),
    "dropped": Takes(kind="switch"),
    "divergence_weight": _NUMBER,
}

INFINITY_INPUTS: Mapping[str, Inputs] = {
    "t5.embed_tokens": {"ids": Takes("any", "integer", below="t5_vocabulary")},
    "bsq.encode": {"image": Takes("3 any any")},
    "bsq.decode": {"bits": _BYTES},
    "infinity.prompt_loss": {**_TRAINING, "prompt": _TEXT},
    "infinity.lora_loss": {
        **_TRAINING,
        "lora": Takes("any"),
        "lora_scale": _NUMBER,
        "dropout_seed": Takes(kind="integer"),
    },
    "infinity.bit_accuracy": {"text": _TEXT, "bits": _BYTES, **_ADAPTERS},
    "infinity.word_attention": {"text": _TEXT, "span": Takes("any"), "bits": _BYTES},
    "infinity.log_odds": {
        "text": _TEXT,
        "bits": _BYTES,
        "guidance": _SCALES,
        "temperature": _SCALES,
        "negative": Takes(_TEXT.axes, optional=True),
        **_ADAPTERS,
    },
    "infinity.edit": {
        "text": _TEXT,
        "bits": _BYTES,
        "weight": Takes("any any"),
        "guidance": _SCALES,
        "temperature": _SCALES,
        "seed": Takes(kind="integer"),
        "negative": Takes(_TEXT.axes, optional=True),
        "log_odds": Takes("any any", optional=True),
        **_ADAPTERS,
    },
}
"""By operation; every operation of `OPERATIONS` has its row."""


def infinity_sizes(networks: InfinityNetworks) -> dict[str, int]:
    """What the names in `Takes` stand for, besides those of `farm.backbones.inputs.sizes_of`."""
    return {
        "infinity_text_width": networks.spec.text_width,
        "infinity_bits": networks.spec.latent_channels,
        "infinity_blocks": networks.spec.depth,
        "t5_vocabulary": networks.text.vocabulary,
    }


def _routed(operation: Operation) -> Operation:
    """The operation for networks of which Infinity is a part."""
    if isinstance(operation, Stepped):
        return _RoutedSteps(operation)

    def run(networks: Networks, tensors: Tensors, static: Static) -> Batch:
        return operation(networks.infinity, tensors, static)

    return run


class _RoutedSteps(Stepped):
    """`_routed` for an operation of several steps."""

    def __init__(self, operation: Stepped) -> None:
        self._operation = operation

    def begin(self, networks: Networks, tensors: Tensors, static: Static) -> Midway:
        return self._operation.begin(networks.infinity, tensors, static)

    def step(self, networks: Networks, tensors: State, static: Static, phase: Any) -> Midway:
        return self._operation.step(networks.infinity, tensors, static, phase)

    def end(self, networks: Networks, tensors: State, static: Static) -> Batch:
        return self._operation.end(networks.infinity, tensors, static)


INFINITY_OPERATIONS: Mapping[str, Operation] = {n: _routed(op) for n, op in OPERATIONS.items()}
"""By name, for `farm.backbones.networks.Networks` that have an Infinity."""
