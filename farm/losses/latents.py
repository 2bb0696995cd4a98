"""Distance of latents."""

from jaxtyping import Float
from torch import Tensor


def latent_loss(
    moved: Float[Tensor, "batch channels height width"],
    target: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Mean squared difference of each sample: L_rec of StyleDiffusion (spec §6)."""
    return (moved - target).square().mean(dim=(1, 2, 3))
