"""Classifier-free guidance."""

from jaxtyping import Float
from torch import Tensor


def guide(
    uncond: Float[Tensor, "*shape"], cond: Float[Tensor, "*shape"], guidance_scale: float
) -> Float[Tensor, "*shape"]:
    """`uncond + guidance_scale * (cond - uncond)`: 0 ignores the prompt, 1 is no guidance.

    Ho and Salimans (arXiv:2207.12598), eq. 6 with `w + 1 = guidance_scale`.
    """
    return uncond + guidance_scale * (cond - uncond)
