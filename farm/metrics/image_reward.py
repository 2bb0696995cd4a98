"""ImageReward (arXiv:2304.05977): how much people would like a picture for a text.

Its authors' package is not among our dependencies, because it wants versions of timm and
transformers that the farm cannot have; where it can be imported, and its weights are there, it is
used as it is.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from farm.errors import ModelSetError

NAME = "image_reward"
PACKAGE = "ImageReward"
FILES = ("image-reward/ImageReward.pt", "image-reward/med_config.json")
"""Expected in the folder of metric weights."""

Reward: TypeAlias = Callable[[Float[Tensor, "3 height width"], str], float]
"""A picture in [0, 1] and a text to a number; published tables give it times 10."""


def load_image_reward(folder: Path | None) -> Reward:
    """The authors' model.

    Raises:
        ModelSetError: naming all that is missing: the package, the folder, files in it.
    """
    missing: list[str] = []
    try:
        package: Any = importlib.import_module(PACKAGE)
    except ImportError as error:
        package = None
        missing.append(
            f"the package image-reward cannot be imported ({error}); its release wants timm 0.6 "
            "and transformers 4, so measure in an environment of its own"
        )
    if folder is None:
        missing.append("no folder of metric weights is named (--weights)")
    else:
        missing += [
            f"{folder / name} is missing" for name in FILES if not (folder / name).is_file()
        ]
    if missing or folder is None:
        raise ModelSetError(
            f"ImageReward cannot be measured: {'; '.join(missing)}; leave it out, or mend what is "
            "named"
        )
    weights, config = (str(folder / name) for name in FILES)
    model: Any = package.load(weights, device="cpu", med_config=config)

    def reward(picture: Float[Tensor, "3 height width"], text: str) -> float:
        levels = (picture.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        shown = Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))
        with torch.no_grad():
            return float(model.score(text, shown))

    return reward
