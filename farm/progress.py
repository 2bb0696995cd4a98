"""What a stage of any method reports while it runs."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Picture = Float[Tensor, "3 height width"]
_T = TypeVar("_T")

STARTING = "starting"
"""The stage of what a trainer says before anything else: that it is there. It has no steps."""


@runtime_checkable
class Checkpoint(Protocol):
    """Trainable state from which a stage can go on elsewhere."""

    def to_tensors(self) -> dict[str, Tensor]:
        """The state as contiguous tensors by name, ready for safetensors."""
        ...


@dataclass(frozen=True)
class Progress:
    """One step of a stage.

    Whoever iterates over a stage owns logging, checkpoints, deadlines and cancelling: between two
    steps nothing is pending.

    Attributes:
        stage: name of the stage.
        step: steps done, 1 to `total`; may jump forwards where a stage stops early.
        total: upper bound of the steps of this stage.
        loss: total loss of this step where there is one.
        detail: further figures by name.
        checkpoint: state after this step, where the stage can resume; it is not copied, and
            never changed later.
        preview: gives the picture as it stands, in [0, 1], where there is one to see; at the cost
            of about a decoding, so it is asked for seldom, and before the next step or never.
    """

    stage: str
    step: int
    total: int
    loss: float | None = None
    detail: Mapping[str, int | float] = field(default_factory=dict[str, int | float])
    checkpoint: Checkpoint | None = None
    preview: Callable[[], Picture] | None = None


def framed(
    steps: Generator[Progress, None, _T], frame: Callable[[Picture], Picture]
) -> Generator[Progress, None, _T]:
    """The same steps, whose previews are brought to another frame: the original's, say."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as ended:
            return ended.value
        preview = progress.preview
        if preview is not None:
            progress = replace(progress, preview=lambda shown=preview: frame(shown()))
        yield progress
