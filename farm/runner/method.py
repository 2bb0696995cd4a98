"""What the runner must know of a method: its stages, what they depend on, and how to run them."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from farm.calls import Executor
from farm.images import DecodedImage, Placement
from farm.progress import Progress
from farm.requests import EditRequest
from farm.results import EditResult
from farm.zoo.model_sets import ModelSet

Files = Mapping[str, bytes]
ReadStage = Callable[[str], Files]
"""Files of an earlier stage of the same edit, by the stage's name."""
Steps = Generator[Progress, None, Files]


@dataclass(frozen=True)
class StagePlan:
    """One reusable stage.

    Attributes:
        name: among the stages of its method.
        depends: what determines it besides the image, the seed, the weights, the method's version
            and the stages before it.
    """

    name: str
    depends: Mapping[str, Any]


@dataclass(frozen=True)
class PreparedEdit:
    """A request that has passed every check that needs no network; pickles."""

    request: EditRequest
    image: bytes
    model_set: ModelSet
    method: "MethodRun"
    image_digest: str
    root: str
    """Digest of what determines every stage: the image, the weights, the seed, the method."""
    stages: Mapping[str, str]
    """Digest of what determines each stage, by its name, in order."""
    edit_id: str
    """What determines the result."""

    @property
    def stage_digest(self) -> str:
        """Of the last stage, which all others lead to."""
        return list(self.stages.values())[-1]


@dataclass(frozen=True)
class NestedEdit:
    """An edit that was done within another.

    Attributes:
        result: as anybody finds it in the store.
        read: one of its outputs by name.
    """

    result: EditResult
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Workbench:
    """What a method finds in front of it while an edit runs.

    Attributes:
        request: what is asked.
        model_set: the frozen networks' descriptions; the networks are behind `executor`.
        executor: runs calls, counting them.
        original: the image as handed in.
        square: the image as the networks take it.
        placement: where the square lies in the original.
        is_made: whether the last of some stages, each after those before it, is in the store; the
            stages may be others than the edit's own.
        nested: does another edit within this one, or finds it done; what it costs is this one's,
            and its stages are called "<name>.<stage>" with the name that is handed over.
    """

    request: EditRequest
    model_set: ModelSet
    executor: Executor
    original: DecodedImage
    square: Float[Tensor, "3 size size"]
    placement: Placement
    is_made: Callable[[Sequence[StagePlan]], bool]
    nested: Callable[[PreparedEdit, str], NestedEdit]


@dataclass(frozen=True)
class Outputs:
    """What an edit gives.

    Attributes:
        edited: at the original's resolution, in [0, 1].
        pictures: further pictures by name, with one or three channels.
        figures: plain numbers about this edit.
        files: anything else, by file name.
    """

    edited: Float[Tensor, "3 height width"]
    pictures: Mapping[str, Float[Tensor, "channels _ _"]]
    figures: Mapping[str, float]
    files: Files = field(default_factory=dict[str, bytes])


@runtime_checkable
class MethodRun(Protocol):
    """One checked edit of one method: plain data, so that it travels to a trainer."""

    @property
    def version(self) -> int:
        """Of the method's code; part of every digest."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders of the model set whose weights the result depends on."""
        ...

    @property
    def config(self) -> BaseModel:
        """Everything configurable with all defaults filled in."""
        ...

    @property
    def stages(self) -> Sequence[StagePlan]:
        """Reusable stages, in the order in which they are needed."""
        ...

    @property
    def depends(self) -> Mapping[str, Any]:
        """What the result depends on besides the last stage."""
        ...

    def make(
        self,
        stage: str,
        bench: Workbench,
        read: ReadStage,
        checkpoint: Mapping[str, Tensor] | None,
    ) -> Steps:
        """Compute a stage, from a checkpoint if there is one; returns its files."""
        ...

    def edit(self, bench: Workbench, read: ReadStage) -> Generator[Progress, None, Outputs]:
        """The edit itself, from its stages."""
        ...
