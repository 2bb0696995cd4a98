"""What a distance of two pictures is, whatever network measures it."""

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

InputRange = Literal["symmetric", "unit"]
"""What LPIPS is fed of a picture in [0, 1]: "symmetric" is [-1, 1], as it was trained; "unit" is
the picture as it is, as StyleDiffusion's program does (spec §8.1)."""


@runtime_checkable
class PairDistance(Protocol):
    """A distance of pictures in [0, 1], one number per pair; 0 for equal ones."""

    @property
    def name(self) -> str:
        """Measure and network: what results are called."""
        ...

    def __call__(
        self,
        first: Float[Tensor, "batch 3 height width"],
        second: Float[Tensor, "batch 3 height width"],
        /,
    ) -> Float[Tensor, " batch"]: ...
