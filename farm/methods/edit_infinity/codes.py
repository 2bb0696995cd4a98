"""Stage: a picture as the bits of every scale (spec §5.2). Depends on nothing but the picture."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from farm.methods.edit_infinity.client import InfinityClient
from farm.methods.edit_infinity.needs import Layout
from farm.methods.edit_infinity.stored import read_artifact
from farm.progress import Progress

STAGE = "edit_infinity.codes"


@dataclass(frozen=True)
class SourceCodes:
    """A source picture.

    Attributes:
        layout: name of its scales.
        features: before quantisation; noise is repaired from these (spec §3.3).
        bits: of all scales, packed.
        reconstruction: the picture that the bits stand for, 8 bits a channel.
    """

    layout: str
    features: Float[Tensor, "bits height width"]
    bits: UInt8[Tensor, " bytes"]
    reconstruction: UInt8[Tensor, "3 image_height image_width"]

    @property
    def image(self) -> Float[Tensor, "3 image_height image_width"]:
        """The reconstruction in [0, 1]."""
        return self.reconstruction.float() / 255

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name; `metadata` goes with them."""
        return {
            "features": self.features.contiguous(),
            "bits": self.bits.contiguous(),
            "reconstruction": self.reconstruction.contiguous(),
        }

    def metadata(self) -> dict[str, str]:
        """What is not a tensor."""
        return {"layout": self.layout}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> "SourceCodes":
        """Inverse of `to_tensors` and `metadata`.

        Raises:
            CorruptArtifactError: something is missing.
        """
        return read_artifact(
            "source codes",
            lambda: cls(
                metadata["layout"],
                tensors["features"],
                tensors["bits"],
                tensors["reconstruction"],
            ),
            tensors,
        )


def make_codes(
    image: Float[Tensor, "3 image_height image_width"], layout: Layout, client: InfinityClient
) -> Generator[Progress, None, SourceCodes]:
    """Encode a picture, and decode its bits again to know what can be had at best.

    Args:
        image: in [0, 1], of the layout's size.
        layout: its scales.
        client: the frozen model.
    """
    features, bits = client.encode(image, layout)
    yield Progress(STAGE, 1, 2)
    decoded = client.decode(bits, layout)
    yield Progress(STAGE, 2, 2, preview=lambda: decoded)
    levels = (decoded.clamp(0, 1) * 255).round().to(torch.uint8)
    return SourceCodes(layout.name, features, bits, levels)
