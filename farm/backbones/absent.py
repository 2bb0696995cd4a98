"""Networks that a model set has not: whoever asks one gets a clear answer."""

from typing import Any, NoReturn

from torch import nn

from farm.backbones.clip import ImageEncoder
from farm.backbones.stable_diffusion import NoisePredictor
from farm.errors import ModelSetError


class _Absent(nn.Module):
    """Answers every call with what is missing.

    Args:
        lack: what the set lacks and what to take instead.
    """

    def __init__(self, lack: str) -> None:
        nn.Module.__init__(self)  # the network itself is not built
        self._lack = lack

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            ModelSetError: always.
        """
        del args, kwargs
        raise ModelSetError(self._lack)


class AbsentNoisePredictor(_Absent, NoisePredictor):
    """Stands where a set with an inpainting UNet alone would have its other UNet."""

    def __init__(self, model_set: str) -> None:
        super().__init__(
            f"model set {model_set} has an inpainting UNet alone: take sd15, or the method "
            "learnable_regions"
        )


class AbsentImageEncoder(_Absent, ImageEncoder):
    """Stands where such a set would have StyleDiffusion's E."""

    def __init__(self, model_set: str) -> None:
        super().__init__(
            f"model set {model_set} has no image encoder for StyleDiffusion: take sd15"
        )
