"""What a stage of any method reports while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


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
    """

    stage: str
    step: int
    total: int
    loss: float | None = None
    detail: Mapping[str, int | float] = field(default_factory=dict[str, int | float])
    checkpoint: Checkpoint | None = None
