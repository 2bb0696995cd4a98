"""What must be known of an Infinity model set without loading any of its networks."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from farm.backbones.infinity.schedules import (
    OWN,
    Grid,
    Schedule,
    Size,
    nearest_ratio,
    own_schedule,
    table_schedule,
)
from farm.errors import InvalidRequestError

Positive = Annotated[int, Field(gt=0)]


class InfinitySpec(BaseModel):
    """Shapes and constants of a transformer, its autoencoder and its text encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    width: Positive
    depth: Positive
    """Blocks."""
    hidden: Positive
    """Width inside the feed-forward networks."""
    text_width: Positive
    text_rows: Positive
    """Most text rows, the learned ones included: rows of the unconditional text."""
    latent_channels: Positive
    """Bits of one latent cell."""
    stride: Positive
    """Pixels per latent cell and side."""
    patchify: bool = False
    """Whether a token stands for 2 x 2 latent cells."""
    size: Size | None = None
    """Pictures of every aspect ratio with about so many pixels."""
    grids: tuple[Grid, ...] | None = None
    """A schedule of its own, for one picture size, instead of `size`."""

    @model_validator(mode="after")
    def _one_schedule(self) -> "InfinitySpec":
        if (self.size is None) == (self.grids is None):
            raise ValueError(
                f"size is {self.size!r} and grids are {self.grids!r}: give exactly one of the two"
            )
        if self.grids is not None:
            try:
                self.schedule(OWN)
            except InvalidRequestError as error:
                raise ValueError(error.message) from error
        return self

    @property
    def cell(self) -> int:
        """Latent cells per token and side."""
        return 2 if self.patchify else 1

    @property
    def token_bits(self) -> int:
        """Bits of one token."""
        return self.latent_channels * self.cell**2

    def schedule(self, name: str) -> Schedule:
        """A schedule by its name.

        Raises:
            InvalidRequestError: this model has none of that name.
        """
        if self.grids is not None:
            if name != OWN:
                raise InvalidRequestError(
                    f"{self.name} has the schedule {OWN!r} alone, found {name!r}"
                )
            return own_schedule(self.grids, cell=self.cell, stride=self.stride)
        assert self.size is not None
        ratio, _, size = name.partition("/")
        if size != self.size:
            raise InvalidRequestError(
                f"{self.name} makes pictures of {self.size}, found the schedule {name!r}: "
                f"ask for 'ratio/{self.size}'"
            )
        return table_schedule(ratio, self.size, cell=self.cell, stride=self.stride)

    def schedule_for(self, height: int, width: int) -> Schedule:
        """The schedule whose aspect ratio is nearest to a picture's."""
        if self.size is None:
            return self.schedule(OWN)
        return self.schedule(f"{nearest_ratio(height, width)}/{self.size}")
