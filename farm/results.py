"""What the farm knows about a finished edit."""

from typing import Any

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 3
"""Of what a commit says of an edit; older ones are read, newer ones refused (`farm.runner`)."""


class Provenance(BaseModel):
    """Everything needed to say where a result came from and what it cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    method: str
    method_version: int
    model_set: str
    weights: dict[str, str]
    """sha256 of each network's weight file."""
    seed: int
    config: dict[str, Any]
    """The method's configuration with all defaults filled in."""
    versions: dict[str, str]
    """Versions of the farm and of the libraries that influence the result."""
    image_digest: str
    stages: dict[str, str]
    """Digest of each stage that was used, by its name."""
    stages_made: list[str]
    """Stages that this edit had to make; the others were in the store."""
    trainer_pid: int
    trainer_node: str = ""
    """Machine of the trainer, as the cluster names it; empty inline and before version 2."""
    backbone_pids: list[int]
    work: dict[str, int]
    """Units of frozen-network work by name."""
    accelerator_seconds: float
    seconds: float
    stage_seconds: dict[str, float]
    """Wall time by stage."""
    stage_accelerator_seconds: dict[str, float] = {}
    """Accelerator seconds of each stage that this edit made, and of the edit itself as "editing";
    empty for edits of before."""
    safety: dict[str, bool] | None = None
    """Whether the model set's safety checker flagged a picture, which is black then, by its name;
    None where the set has none."""

    @property
    def stage_reused(self) -> bool:
        """Whether all stages were already in the store."""
        return not self.stages_made


class EditResult(BaseModel):
    """A committed edit: where its files are, how they were made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    edit_id: str
    attempt: str
    files: dict[str, str]
    """Name of each output → its key in the store."""
    provenance: Provenance
    reused: bool = False
    """Whether the whole edit was already in the store."""
