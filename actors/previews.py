"""Pictures of an edit on its way: only while somebody looks, seldom, and small."""

import time
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.errors import FarmError
from farm.images import encode_jpeg
from farm.progress import Progress

_LEAST_PAUSE = 1.0  # seconds between two pictures of one edit
_SHARE = 0.05  # of an edit's time, at most, goes into pictures
_SIDE = 256  # pixels, of the longer side
_QUALITIES = (85, 60, 30)
_MOST_BYTES = 48 * 1024  # noise of 256 × 256 pixels fits with the last quality


class Previews:
    """Of one edit.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()

    def take(self, progress: Progress) -> bytes | None:
        """A JPEG of the step's picture, if it has one and it is time.

        A picture that cannot be had is left out: whatever is wrong, the edit's next step will say.
        """
        started = self._clock()
        if progress.preview is None or started < self._next:
            return None
        try:
            return small_jpeg(progress.preview())
        except FarmError:
            return None
        finally:
            ended = self._clock()
            self._next = ended + max(_LEAST_PAUSE, (ended - started) / _SHARE)


def small_jpeg(image: Float[Tensor, "3 height width"]) -> bytes:
    """A picture in [0, 1], made small enough to be sent often.

    Raises:
        EditFailedError: it has values that are not finite.
    """
    height, width = image.shape[-2:]
    scale = _SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    data = b""
    for quality in _QUALITIES:
        data = encode_jpeg(image.clamp(0, 1), quality=quality)
        if len(data) <= _MOST_BYTES:
            break
    return data
