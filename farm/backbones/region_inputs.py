"""What each operation of Learnable Regions takes; see `farm.backbones.inputs`."""

from collections.abc import Mapping

from farm.backbones.inputs import Inputs, Takes
from farm.backbones.region_networks import RegionNetworks
from farm.losses.views import VIEW_NUMBERS

_IMAGE = Takes("3 any any")
_NUMBER = Takes()
_IDS = Takes("tokens", "integer", below="vocabulary")
_LATENTS = Takes("channels latent latent")
_EMBEDS = Takes("tokens width")
_LEVELS = Takes("any")
_INPAINTING: Inputs = {
    "latents": _LATENTS,
    "embeds": _EMBEDS,
    "uncond_embeds": Takes(_EMBEDS.axes, optional=True),
    "guidance_scale": Takes(optional=True),
    "mask": Takes("1 latent latent"),
    "left": _LATENTS,
}

REGION_INPUTS: Mapping[str, Inputs] = {
    "dino.features": {"image": _IMAGE},
    "scorer.embed_text": {"ids": _IDS},
    "scorer.image": {"image": _IMAGE, "scale": _NUMBER},
    "scorer.views": {"image": _IMAGE, "views": Takes("any view_numbers"), "scale": _NUMBER},
    "scorer.relevance": {"image": _IMAGE, "direction": Takes("embed_width")},
    "inpainting.step": {
        **_INPAINTING,
        "timestep": Takes(kind="integer", below="timesteps"),
        "alpha": _NUMBER,
        "alpha_prev": _NUMBER,
    },
    "inpainting.sample": {
        **_INPAINTING,
        "timesteps": Takes("any", "integer", below="timesteps"),
        "alphas": _LEVELS,
        "alphas_prev": _LEVELS,
    },
}
"""By operation; every operation of `REGION_OPERATIONS` has its row."""


def region_sizes(networks: RegionNetworks) -> dict[str, int]:
    """What the names in `Takes` stand for, besides those of `farm.backbones.inputs.sizes_of`."""
    return {"view_numbers": VIEW_NUMBERS, "embed_width": networks.scorer.embed_width}
