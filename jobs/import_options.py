"""What an importer is told besides the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ImportOptions:
    """What a job says about all lines of a file.

    Attributes:
        model_set: of all requests.
        parameters: of the method, for lines that do not set them.
        from_case: the first case that counts; None for all.
        end_case: the case before which to stop; None for all.
        method: of lines that name none, in forms whose lines may name one; None for the default.
    """

    model_set: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    from_case: int | None = None
    end_case: int | None = None
    method: str | None = None

    def counts(self, case: int) -> bool:
        """Whether a case is among the chosen ones."""
        after = self.from_case is None or case >= self.from_case
        return after and (self.end_case is None or case < self.end_case)
