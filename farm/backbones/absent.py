"""Networks that a model set has not: whoever asks one gets a clear answer."""

from typing import Any, NoReturn

from torch import nn

from farm.backbones.clip import ImageEncoder
from farm.backbones.stable_diffusion import NoisePredictor
from farm.errors import ModelSetError


class AbsentNoisePredictor(NoisePredictor):
    """Stands where a set with an inpainting UNet alone would have its other UNet."""

    def __init__(self, model_set: str) -> None:
        nn.Module.__init__(self)
        self._model_set = model_set

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            ModelSetError: always.
        """
        del args, kwargs
        raise ModelSetError(
            f"model set {self._model_set} has an inpainting UNet alone: take sd15, or the method "
            "learnable_regions"
        )


class AbsentImageEncoder(ImageEncoder):
    """Stands where such a set would have StyleDiffusion's E."""

    def __init__(self, model_set: str) -> None:
        nn.Module.__init__(self)
        self._model_set = model_set

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            ModelSetError: always.
        """
        del args, kwargs
        raise ModelSetError(
            f"model set {self._model_set} has no image encoder for StyleDiffusion: take sd15"
        )
