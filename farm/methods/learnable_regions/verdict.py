"""What the inpainting model says of finished pictures: is this what the target says?"""

from collections.abc import Generator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.learnable_regions.config import ProbeConfig
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.methods.learnable_regions.probing import Embeds, noise_errors
from farm.progress import Progress

STAGE = "learnable_regions.verdict"


def verdicts(
    pictures: Sequence[Float[Tensor, "3 size size"]],
    prompts: tuple[Embeds, Embeds],
    client: RegionBackbones,
    config: ProbeConfig,
    *,
    seed: int,
) -> Generator[Progress, None, Float[Tensor, " pictures"]]:
    """How likely each picture is under the target, and how much likelier than under the caption.

    A diffusion model as a classifier (Li et al., arXiv:2303.16203, §3): under the words that a
    picture shows, the noise on it is predicted best. With e(p) the mean square error under prompt
    p, the mean over levels of -log e(target) + (log e(caption) - log e(target)). Of use only
    beside the verdicts on other edits of the same picture.

    Args:
        pictures: at the model's size, in [0, 1].
        prompts: embeddings of caption and target in the inpainting model.
        client: the frozen networks.
        config: levels, and noises of each.
        seed: of the noise.

    Yields:
        One `Progress` a lot of questions.
    """
    errors = yield from noise_errors(pictures, prompts, client, config, seed=seed, stage=STAGE)
    squares = errors.square().mean(dim=(3, 4, 5, 6)).clamp(min=torch.finfo(errors.dtype).tiny)
    caption, target = squares.log().mean(dim=2).unbind(1)
    return caption - 2 * target
