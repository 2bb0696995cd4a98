"""What is measured of each method besides its picture; one small class a method."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from farm.calls import Executor
from farm.diffusion import DiffusionClient
from farm.errors import InvalidRequestError
from farm.runner import PreparedEdit
from farm.zoo.scenes.edits import EditTruth
from jobs.evaluation.finished import Finished

Image = Float[Tensor, "3 height width"]
Map = Float[Tensor, "height width"]


@dataclass(frozen=True)
class Bounds:
    """What the source becomes without an edit.

    Attributes:
        autoencoded: by the autoencoder that the method uses, alone.
        others: by other ways, by the figure that their PSNR is.
    """

    autoencoded: Image
    others: Mapping[str, Image] = field(default_factory=dict[str, Image])


@dataclass(frozen=True)
class Found:
    """What a method left in the store besides its picture.

    Attributes:
        mask: what it chose to edit; None where a map alone says so.
        map: whose maximum is where it points; None where it has none.
        reconstruction: its own picture of the source, if it makes one.
        figures: that only this method has.
    """

    mask: Map | None
    map: Map | None
    reconstruction: Image | None = None
    figures: Mapping[str, float] = field(default_factory=dict[str, float])


@runtime_checkable
class Measures(Protocol):
    """What the evaluation must know of a method."""

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        """Edits of one source for which this is equal have the same bounds."""
        ...

    def bounds(self, executor: Executor, edit: Finished, source: Image) -> Bounds:
        """Bounds of a finished edit."""
        ...

    def found(self, edit: Finished, truth: EditTruth) -> Found:
        """What the store has of a finished edit."""
        ...


class BaselineMeasures:
    """Of what leaves nothing but a picture of the model set's UNet for diffusion."""

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        del prepared
        return "baseline"

    def bounds(self, executor: Executor, edit: Finished, source: Image) -> Bounds:
        return Bounds(autoencoded(executor, edit.prepared, source))

    def found(self, edit: Finished, truth: EditTruth) -> Found:
        del edit, truth
        return NOTHING


NOTHING = Found(mask=None, map=None)
"""Of an edit that left a picture alone."""


def autoencoded(executor: Executor, prepared: PreparedEdit, source: Image) -> Image:
    """The source through the model set's autoencoder for diffusion."""
    client = DiffusionClient(executor, prepared.model_set.spec)
    return client.decode(client.encode(source))


def measures_of(method: str, known: Mapping[str, Measures]) -> Measures:
    """The measures of a method.

    Raises:
        InvalidRequestError: it cannot be evaluated.
    """
    if method not in known:
        raise InvalidRequestError(
            f"method {method!r} cannot be evaluated yet; there are {', '.join(known)}"
        )
    return known[method]
