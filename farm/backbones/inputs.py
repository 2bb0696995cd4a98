"""What each operation takes, checked before anything is stacked or computed.

A call comes from another process, perhaps one with another model set in mind; what it got wrong is
said here in its own words, instead of by a tensor library in the middle of a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Shaped

from farm.backbones.networks import Networks
from farm.calls import Call
from farm.errors import InvalidRequestError

Kind: TypeAlias = Literal["number", "integer", "switch", "byte"]
AnyArray: TypeAlias = Shaped[np.ndarray, "..."]

_DTYPES: Mapping[Kind, tuple[str, ...]] = {
    "number": ("float32", "float16", "float64"),
    "integer": ("int64", "int32"),
    "switch": ("bool",),
    "byte": ("uint8",),
}
_ANY = "any"


@dataclass(frozen=True)
class Takes:
    """One array of a call.

    Attributes:
        axes: sizes, by number or by a name of `sizes_of`; "any" is any size but zero.
        kind: of its elements.
        below: for integers, the name of the size that they count up to; they start at 0.
        optional: whether a call may go without it.
    """

    axes: str = ""
    kind: Kind = "number"
    below: str | None = None
    optional: bool = False


Inputs: TypeAlias = Mapping[str, Takes]

_LATENTS = Takes("channels latent latent")
_EMBEDS = Takes("tokens width")
_TIMESTEP = Takes(kind="integer", below="timesteps")
_NUMBER = Takes()
_SWITCH = Takes(kind="switch")
_PREDICTION: Inputs = {
    "latents": _LATENTS,
    "timestep": _TIMESTEP,
    "embeds": _EMBEDS,
    "value_embeds": Takes(_EMBEDS.axes, optional=True),
}

INPUTS: Mapping[str, Inputs] = {
    "clip.embed_tokens": {"ids": Takes("tokens", "integer", below="vocabulary")},
    "clip.image_tokens": {"image": Takes("3 any any")},  # the encoder resizes
    "vae.encode": {"image": Takes("3 image image")},
    "vae.decode": {"latents": _LATENTS},
    "unet.noise": _PREDICTION,
    "unet.source_noise": _PREDICTION,
    "unet.value_loss": {
        "latents": _LATENTS,
        "timestep": _TIMESTEP,
        "embeds": _EMBEDS,
        "value_embeds": _EMBEDS,
        "noise_uncond": _LATENTS,
        "guidance_scale": _NUMBER,
        "alpha": _NUMBER,
        "alpha_prev": _NUMBER,
        "target_latents": _LATENTS,
        "map_latents": _LATENTS,
        "map_timestep": _TIMESTEP,
        "attention_weight": _NUMBER,
    },
    "unet.context_loss": {
        "latents": _LATENTS,
        "timestep": _TIMESTEP,
        "embeds": _EMBEDS,
        "other_noise": _LATENTS,
        "weight": _NUMBER,
        "alpha": _NUMBER,
        "alpha_prev": _NUMBER,
        "target_latents": _LATENTS,
    },
    "unet.edit_noise": {
        "latents": _LATENTS,
        "timestep": _TIMESTEP,
        "embeds": _EMBEDS,
        "uncond_embeds": _EMBEDS,
        "value_embeds": _EMBEDS,
        "source_latents": _LATENTS,
        "source_embeds": _EMBEDS,
        "source_value_embeds": _EMBEDS,
        "mapper": Takes("tokens tokens"),
        "refine_alpha": Takes("tokens"),
        "equalizer": Takes("tokens"),
        "cross_alpha": Takes("tokens"),
        "self_active": _SWITCH,
        "uncond_self_active": _SWITCH,
        "score_tokens": Takes("any tokens", optional=True),
    },
}
"""By operation, as `farm.diffusion` asks it; every operation of `OPERATIONS` has its row."""


def sizes_of(networks: Networks) -> dict[str, int]:
    """What the names in `Takes` stand for with these networks."""
    spec = networks.spec
    return {
        "channels": spec.latent_channels,
        "latent": spec.latent_size,
        "image": spec.image_size,
        "tokens": spec.tokens,
        "width": spec.text_width,
        "timesteps": spec.num_train_timesteps,
        "vocabulary": networks.text.tower.config.vocab_size,
    }


def check_inputs(call: Call, inputs: Inputs, sizes: Mapping[str, int]) -> None:
    """Refuse a call whose arrays the operation cannot take.

    Raises:
        InvalidRequestError: naming the first array that is missing, unknown or malformed, with what
            was found and what was expected.
    """
    needed = {name for name, takes in inputs.items() if not takes.optional}
    wrong = sorted(needed - call.arrays.keys()) or sorted(call.arrays.keys() - inputs.keys())
    if wrong:
        what = "is missing" if wrong[0] in needed else "is unknown"
        raise InvalidRequestError(
            f"{call.op}: the array {wrong[0]!r} {what}; found {_listed(call.arrays)}, expected "
            f"{_listed(inputs)}"
        )
    for name, array in call.arrays.items():
        found, expected = _contradiction(array, inputs[name], sizes)
        if expected:
            raise InvalidRequestError(
                f"{call.op}: {name} {found}, expected {expected}; send what the loaded model set "
                "takes"
            )


def _contradiction(array: AnyArray, takes: Takes, sizes: Mapping[str, int]) -> tuple[str, str]:
    """What was found and what was expected; empty where they agree."""
    if array.dtype.name not in _DTYPES[takes.kind] or not array.dtype.isnative:
        return f"holds {array.dtype.str} ({array.dtype.name})", " or ".join(_DTYPES[takes.kind])
    axes = takes.axes.split()
    expected = tuple(_size(axis, sizes) for axis in axes)
    fits = len(expected) == array.ndim and all(
        found > 0 if wanted == _ANY else found == wanted
        for found, wanted in zip(array.shape, expected, strict=True)
    )
    if not fits:
        return f"has shape {_shape(array.shape)}", f"{_shape(expected)} for one item, no batch axis"
    if takes.below is not None:
        limit = sizes[takes.below]
        lowest, highest = int(array.min()), int(array.max())
        if lowest < 0 or highest >= limit:
            return f"holds {lowest if lowest < 0 else highest}", f"0 to {limit - 1}"
    return "", ""


def _size(axis: str, sizes: Mapping[str, int]) -> int | str:
    if axis == _ANY:
        return axis
    return int(axis) if axis.isdecimal() else sizes[axis]


def _shape(sizes: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
