"""Mean and standard deviation that networks expect of a picture, per channel."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Channels(NamedTuple):
    """Statistics of the pictures that a network was trained with, for samples in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalised(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        mean = image.new_tensor(self.mean).view(1, 3, 1, 1)
        std = image.new_tensor(self.std).view(1, 3, 1, 1)
        return (image - mean) / std


IMAGENET = Channels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Channels((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
