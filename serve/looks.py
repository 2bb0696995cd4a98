"""Which edits somebody looks at: pictures of an edit on its way are made for nobody else."""

from collections.abc import Iterable

_SECONDS = 5.0
"""For how long a look counts."""

Edit = tuple[str, str]
"""A tenant and an id."""


class Looks:
    """Edits that were looked at a moment ago."""

    def __init__(self) -> None:
        self._until: dict[Edit, float] = {}

    def note(self, edits: Iterable[Edit], now: float) -> None:
        """Somebody looks at these; `now` in seconds, monotonic."""
        self._until |= dict.fromkeys(edits, now + _SECONDS)

    def at(self, now: float) -> list[Edit]:
        """Whatever was looked at lately."""
        self._until = {edit: end for edit, end in self._until.items() if end > now}
        return list(self._until)
