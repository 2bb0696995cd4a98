"""What must be known of an Infinity model set without loading any of its networks."""

from pydantic import model_validator

from farm.backbones.infinity.schedules import (
    OWN,
    Schedule,
    nearest_ratio,
    own_schedule,
    table_schedule,
)
from farm.errors import InvalidRequestError
from farm.model_spec import InfinityFacts


class InfinitySpec(InfinityFacts):
    """The facts of a model set's Infinity, and the schedules that follow from them."""

    name: str
    """Of the model set."""

    @classmethod
    def of(cls, name: str, facts: InfinityFacts) -> "InfinitySpec":
        """The facts that a model set states about itself."""
        return cls(name=name, **facts.model_dump())

    @property
    def facts(self) -> InfinityFacts:
        """What a model set states about itself."""
        return InfinityFacts(**self.model_dump(exclude={"name"}))

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
