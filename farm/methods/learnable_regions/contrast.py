"""Where caption and target make the inpainting model see different things."""

from collections.abc import Generator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.methods.learnable_regions.anchors import stretched
from farm.methods.learnable_regions.config import ProbeConfig
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.probing import Embeds, noise_errors
from farm.progress import Progress

STAGE = "learnable_regions.contrast"


def prompt_contrast(
    square: Float[Tensor, "3 size size"],
    prompts: tuple[Embeds, Embeds],
    client: RegionBackbones,
    config: ProbeConfig,
    *,
    seed: int,
) -> Generator[Progress, None, Float[Tensor, "latent latent"]]:
    """How far apart the noises are that two prompts predict, by place; 0 to 1.

    The mask of DiffEdit (arXiv:2210.11427, §3.2, step 1) before its threshold. Each level is
    divided by its greatest difference.

    Args:
        square: the picture at the model's size, in [0, 1].
        prompts: embeddings of caption and target in the inpainting model.
        client: the frozen networks.
        config: levels, and noises of each.
        seed: of the noise.

    Yields:
        One `Progress` a lot of questions.
    """
    errors = yield from noise_errors([square], prompts, client, config, seed=seed, stage=STAGE)
    caption, target = errors[0]
    apart = (caption - target).abs().sum(dim=2).mean(dim=1)  # by level and place
    most = apart.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    return (apart / most).mean(dim=0)


def grounded(
    relevance: Float[Tensor, "_ _"],
    contrast: Float[Tensor, "rows columns"] | None,
    share: float,
) -> Float[Tensor, "_ _"]:
    """Relevance and contrast, each stretched to 0 to 1, mixed at the contrast's size.

    Args:
        relevance: of each of CLIP's patches to the words.
        contrast: `prompt_contrast`; None: the relevance alone, as it is.
        share: the contrast's.
    """
    if contrast is None:
        return relevance
    resized = F.interpolate(relevance[None, None], contrast.shape, mode="bilinear")[0, 0]
    return (1 - share) * stretched(resized) + share * stretched(contrast)
